# SPDX-License-Identifier: GPL-2.0-only
"""EasyBuild's own options and parameters keep working on top of ContainerImage, and none of them touches an overlay."""

import os
import shutil
from types import SimpleNamespace

import pytest
import yaml

import harness
import toys

pytestmark = pytest.mark.e2e


@pytest.fixture(scope='module')
def standing(tmp_path_factory, images, registry):
    """An environment module with a used overlay: directory, prefix, recipe, and eb(), which no longer has the image."""
    directory = tmp_path_factory.mktemp('options')
    site = directory / 'site.yaml'
    site.write_text(yaml.safe_dump(harness.site_settings(registry)))
    recipe = toys.recipe(directory, image=images.sif('python').name, python_env='toy', commands=['python', 'pip'],
                         sanity_check_commands=['python -c "import json"'])
    result = SimpleNamespace(
        directory=directory, prefix=directory / 'prefix', root=directory / 'prefix' / 'software' / 'toy' / '1.0',
        module=directory / 'prefix' / 'modules' / 'all' / 'toy' / '1.0.lua', recipe=recipe,
        eb=lambda *args, **options: harness.run_eb([recipe, *args], directory / 'prefix', directory / 'home', site,
                                                   **options))
    result.eb('--sourcepath=%s' % images.sif('python').parent)
    overlay = result.prefix / 'overlays' / 'toy' / '1.0'
    (overlay / 'user-software' / 'mine').write_text('precious')
    (overlay / 'user-software' / 'mine').chmod(0o600)
    harness.run(['mksquashfs', overlay / 'user-software', overlay / 'user-software.squashfs', '-quiet'])
    result.before = state(result)
    return result


def state(standing):
    """Return what is on disk but for EasyBuild's own logs, which are of each session (dict)."""
    return {'root': toys.snapshot(standing.root, 'easybuild'), 'module': standing.module.read_text(),
            'link': os.readlink(standing.prefix / 'modules' / 'tools' / 'toy' / '1.0.lua'),
            'overlay': toys.snapshot(standing.prefix / 'overlays'), 'site': toys.snapshot(standing.prefix / 'easysif'),
            'beside': sorted(os.listdir(standing.root.parent)),
            'locks': list((standing.root.parents[1] / '.locks').glob('*')),
            'sources': toys.files(standing.prefix / 'sources')}


STOPPED = 'COMPLETED: Installation STOPPED successfully'
ENDED = 'COMPLETED: Installation ended successfully'

#: options, and what eb prints
OPTIONS = {
    '': 'toy/1.0 is already installed (module found), skipping',
    '-D': ' * [x] ',
    '-x --rebuild': '(no ignored errors during dry run)',
    '--fetch --rebuild': STOPPED,
    '--stop=build --rebuild': STOPPED,
    '--stop=install --rebuild': STOPPED,
    '--stop=module --rebuild': STOPPED,
    '--sanity-check-only': 'result for command \'python -c "import json"\': OK',
    '--module-only --rebuild': ENDED,
    '--skip --rebuild': ENDED,
    '--rebuild': ENDED,
    '--force': ENDED,
}


@pytest.mark.parametrize('options', OPTIONS)
def test_the_overlay_and_the_installation_stay_as_they_are(standing, options):
    image = standing.root / toys.installation(standing.prefix)[1]['image']['file']
    inode = image.stat().st_ino
    assert OPTIONS[options] in standing.eb(*options.split()).output
    assert state(standing) == standing.before
    assert image.stat().st_ino == inode  # no copy of what is ours already


def test_tests_that_did_not_run_are_recorded_as_such(standing):
    standing.eb('--rebuild', '--skip-sanity-check')
    assert toys.installation(standing.prefix)[1]['tests'] == [{'command': 'python -c "import json"',
                                                              'result': 'skipped'}]
    standing.eb('--module-only', '--rebuild')
    assert state(standing) == standing.before


def test_a_lost_module_file_comes_back_by_plain_eb(standing):
    standing.module.unlink()
    standing.eb()
    assert state(standing) == standing.before


def test_a_read_only_installation_can_be_rebuilt(standing):
    standing.eb('--rebuild', '--read-only-installdir')
    assert not os.access(standing.root / 'bin', os.W_OK)
    recipe = standing.recipe
    tested = recipe.read_text()
    read_only = 'test -d {0} -a ! -w {0}'.format(standing.root / 'bin')
    recipe.write_text(tested.replace('python -c "import json"', read_only))
    standing.eb('--rebuild', '--read-only-installdir')  # what stands is read-only until the new one takes its place
    recipe.write_text(tested)
    standing.eb('--rebuild')
    assert state(standing) == standing.before


def test_the_sanity_check_of_a_read_only_prefix_works(standing):
    software = standing.prefix / 'software'
    for directory in (software, standing.root):
        directory.chmod(0o555)
    try:
        result = standing.eb('--sanity-check-only')
    finally:
        for directory in (software, standing.root):
            directory.chmod(0o755)
    assert "result for command 'python -c \"import json\"': OK" in result.output
    assert state(standing) == standing.before


@pytest.mark.parametrize('option', ['-D', '-x'])
def test_a_dry_run_of_what_is_not_there_makes_nothing(eb, prefix, tmp_path, option):
    recipe = toys.recipe(tmp_path, image='docker://registry.invalid/toy:1', commands=['fine'], python_env='toy')
    result = eb(recipe, option)
    assert toys.files(prefix) == set()
    if option == '-x':
        assert '  * docker://registry.invalid/toy:1 will be fetched' in result.output
        assert '(no ignored errors during dry run)' in result.output
    else:
        assert ' * [ ] ' in result.output and 'toy-1.0.eb (module: toy/1.0)' in result.output


def test_another_installpath_holds_everything(eb, shell, prefix, tmp_path, toy):
    recipe = toys.recipe(tmp_path, image='toy.sif')
    eb(recipe, '--installpath=%s' % (tmp_path / 'there'), '--sourcepath=%s' % toy.parent)
    assert {path.name for path in (tmp_path / 'there').iterdir()} == {'easysif', 'modules', 'overlays', 'software'}
    assert not (prefix / 'software').exists() and not (prefix / 'overlays').exists()
    loaded = shell('module load toy; echo "$SIF $CONTAINERROOT"; singularity exec "$SIF" fine it runs',
                   prefix=tmp_path / 'there').stdout
    assert loaded == '{0}/software/toy/1.0/toy.sif {0}/overlays/toy/1.0\nit runs\n'.format(tmp_path / 'there')


def test_under_another_version_the_digest_is_dropped_and_that_is_said(eb, prefix, tmp_path, toy):
    store = tmp_path / 'store'
    store.mkdir()
    for version in ('1.0', '2.0'):
        shutil.copy(toy, store / ('toy-%s.sif' % version))
    recipe = toys.recipe(tmp_path, image='toy-%(version)s.sif', digest='sha256:' + '0' * 64, commands=['fine'])
    result = eb(recipe, '--try-software-version=2.0', '--sourcepath=%s' % store)
    assert 'WARNING: toy-2.0.eb: the digest belongs to the version as written and is dropped' in result.output
    root, manifest = toys.installation(prefix, 'toy/2.0')
    assert (manifest['image']['file'], manifest['image']['digest']) == ('toy-2.0.sif', 'sha256:' + toys.sha256(toy))
    assert manifest['recipe'] == 'toy-2.0.eb'
    assert 'digest does not match the image' in eb(recipe, '--sourcepath=%s' % store, check=False).output


def test_under_another_version_the_digest_within_the_reference_is_dropped_too(eb, tmp_path):
    recipe = toys.recipe(tmp_path, image='docker://127.0.0.1:1/toy:%%(version)s@sha256:%s' % ('0' * 64))
    result = eb(recipe, '--try-software-version=2.0', check=False)
    assert 'WARNING: toy-2.0.eb: the digest belongs to the version as written and is dropped' in result.output
    assert "toy-2.0.eb: image 'docker://127.0.0.1:1/toy:2.0' is not to be had\n" in result.output


def test_easybuilds_own_parameters_keep_working(eb, shell, prefix, tmp_path, toy):
    toys.recipe(tmp_path, 'base', commands={'deep': 'fine below'})
    recipe = toys.recipe(tmp_path, commands=['fine'], dependencies=[('base', '1.0')],
                         modextravars={'TOY_COLOUR': "it's red"}, modluafooter='setenv("TOY_END", "yes")',
                         modextrapaths={'TOY_PATH': 'bin'}, usage='Play with it.',
                         postinstallcmds=['echo "%(name)s $PWD" >%(installdir)s/mark'],
                         sanity_check_paths={'files': ['mark'], 'dirs': ['runscripts']},
                         sanity_check_commands=['fine; deep', 'test "$(deep)" = below'])
    eb(recipe, '--robot=%s' % tmp_path, '--sourcepath=%s' % toy.parent)
    root, manifest = toys.installation(prefix)
    assert (root / 'mark').read_text().startswith('toy /')
    assert 'mark' in manifest['files']
    printed = shell('module load toy; deep; echo "$TOY_COLOUR $TOY_END $TOY_PATH"; module help toy').output
    assert "below\nit's red yes %s/bin\n" % root in printed and 'Play with it.' in printed


def test_inject_checksums_writes_the_digest_of_an_image(eb, tmp_path, toy, images):
    (tmp_path / 'x.def').write_text('Bootstrap: scratch\n')
    recipes = {'file': toys.recipe(tmp_path, 'file', commands=['fine']),
               'registry': toys.recipe(tmp_path, 'registry', image=images.upstream('busybox')),
               'definition': toys.recipe(tmp_path, 'definition', image='x.def'),
               'checked': toys.recipe(tmp_path, 'checked', checksums=['0' * 64])}
    before = {name: path.read_text() for name, path in recipes.items()}
    digests = {'file': 'sha256:' + toys.sha256(toy), 'registry': images.digest('busybox')}
    result = eb(recipes['file'], recipes['registry'], '--inject-checksums', '--sourcepath=%s' % toy.parent)
    for name, digest in digests.items():
        assert '== %s-1.0.eb: digest = %s\n' % (name, digest) in result.output
        assert recipes[name].read_text() == before[name].replace('moduleclass', "digest = '%s'\nmoduleclass" % digest)
    for name, hint in (('definition', "sha256sum NAME.def, and write checksums = ['…']"),
                       ('checked', 'easysif pin %s' % recipes['checked'])):
        result = eb(recipes[name], '--inject-checksums', '--force', '--sourcepath=%s' % toy.parent, check=False)
        assert result.status != 0 and 'Traceback' not in result.output
        assert ('%s-1.0.eb: eb --inject-checksums writes no checksums of definition files and images\nhint: %s'
                % (name, hint)) in result.output
        assert recipes[name].read_text() == before[name]


def test_a_module_alone_needs_an_installation(eb, prefix, tmp_path, toy):
    result = eb(toys.recipe(tmp_path, commands=['fine']), '--module-only', check=False)
    assert result.status != 0
    assert ('%s/software/toy/1.0/easysif.json: cannot be read (No such file or directory)\n'
            'hint: eb --rebuild RECIPE.eb' % prefix) in result.output
    assert toys.files(prefix) == set()
