# SPDX-License-Identifier: GPL-2.0-only
"""The layer of a recipe: what pip is told, what is said where it fails, its use with and without an overlay."""

import json
import os
import re
import shutil
from types import SimpleNamespace

import pytest

import standins as library
import toys
from easysif import layer
from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.run import Result
from easysif.runtime import Runtime

PYTHON = {'path': '/usr/bin/python3', 'version': '3.12.1'}
TOLD = {'packages': [{'name': 'small', 'version': '1', 'url': 'file:///w/small.whl', 'sha256': 'f' * 64}],
        'commands': ['activate', 'python', 'small', 'tool'], 'scripts': ['small', 'tool']}


# --- without images ---------------------------------------------------------------------------------------------------

@pytest.fixture
def add(tmp_path, monkeypatch):
    """A function that makes a layer with a stand-in for the runtime, which tells ``answer``, and what that was told."""
    calls = []

    def run(argv, **options):
        calls.append((argv, options))
        return Result(tuple(argv), *answers) if argv[0] == 'apptainer' else real(argv, **options)

    def call(*packages, status=0, stdout=None, stderr='', commands=(), ca='', env=None,
             compressor='gzip'):
        answers[:] = [status, '\neasysif make-layer %s\n' % json.dumps(TOLD) if stdout is None else stdout, stderr]
        calls.clear()
        root = tmp_path / 'root'
        root.mkdir(exist_ok=True)
        recipe = SimpleNamespace(where='jax-1.eb', python_packages=packages, venv='jax')
        facts = {'python': PYTHON, 'env': env or {}, 'commands': {
            name: {'path': path, 'is_python_script': False} for name, path in dict(commands).items()}}
        site = SimpleNamespace(ca_certificates=ca, squashfs={'compressor': compressor, 'level': 9, 'block': '128K'})
        record = layer.add(recipe, facts, '/x.sif', Runtime('apptainer', 'apptainer', (1, 4)), site, str(root))
        argv, options = calls[0] if calls else ([], {})
        return SimpleNamespace(record=record, facts=facts, file=root / 'layer.squashfs', argv=argv, **options)

    real, answers = layer.run, []
    monkeypatch.setattr(layer, 'run', run)
    return call


def failure(call, *args, **options):
    with pytest.raises(EasySIFError) as caught:
        call(*args, **options)
    return caught.value


def test_what_was_asked_for_and_what_was_found_is_recorded(add):
    done = add('small', 'other>=2')
    assert done.record == {'venv': 'jax', 'asked': ['small', 'other>=2'], 'packages': TOLD['packages']}
    assert done.argv[-4:] == ['-', '/layer/venv/jax', 'small', 'other>=2'] and done.file.read_bytes()[:4] == b'hsqs'
    assert add().record is None and add().argv == []


def test_it_is_packed_with_what_the_runtime_can_mount(add, monkeypatch):
    for refused, number in ((), 6), (('zstd',), 1):
        monkeypatch.setattr(layer.compressors, 'refused_of', lambda name, sif, runtime, refused=refused: refused)
        assert add('small', compressor='zstd').file.read_bytes()[20] == number


def test_pip_reaches_the_index_as_the_installer_does_and_nothing_else_of_theirs_counts(add, tmp_path, monkeypatch):
    wheels, config = tmp_path / 'my wheels', tmp_path / 'home' / '.config' / 'pip' / 'pip.conf'
    more = tmp_path / 'more'
    for directory in (wheels, more, config.parent):
        directory.mkdir(parents=True)
    config.write_text('[global]\nfind-links = file://%s\n  /not/there\n' % more)
    for name in ('bundle', 'netrc'):
        (tmp_path / name).touch()
    for name in ('PIP_CERT', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'PIP_CACHE_DIR', 'PIP_CONFIG_FILE'):
        monkeypatch.delenv(name, raising=False)
    for name, value in {'PIP_INDEX_URL': 'http://i/simple', 'https_proxy': 'http://p', 'NO_PROXY': 'x', 'PIP_USER': '1',
                        'PIP_TARGET': '/t', 'PYTHONPATH': '/p', 'NETRC': str(tmp_path / 'netrc')}.items():
        monkeypatch.setenv(name, value)
    done = add('small', ca=str(tmp_path / 'bundle'), env={'SSL_CERT_FILE': '/of/the/image'})
    inside = {name[13:]: value for name, value in done.env.items() if name.startswith('APPTAINERENV_')}
    assert inside['PIP_INDEX_URL'] == 'http://i/simple' and inside['https_proxy'] == 'http://p'
    assert inside['NO_PROXY'] == 'x' and inside['PIP_CONFIG_FILE'] == str(config) and inside['PIP_USER'] == '0'
    assert inside['PIP_CERT'] == inside['REQUESTS_CA_BUNDLE'] == str(tmp_path / 'bundle')
    assert inside['PIP_NO_CACHE_DIR'] == '1' and not {'PIP_TARGET', 'PYTHONPATH', 'SSL_CERT_FILE'} & set(inside)
    binds = [value for name, value in zip(done.argv, done.argv[1:]) if name == '--bind']
    assert {'%s:%s:ro' % (path, path) for path in (more, config, tmp_path / 'bundle', tmp_path / 'netrc')} <= set(binds)
    assert not [bind for bind in binds if bind.startswith('/not/there')] and '--no-home' in done.argv


def test_an_index_that_is_a_directory_is_seen_with_the_files_beside_it_and_a_cache_can_be_written(
        add, tmp_path, monkeypatch):
    for name in ('a mirror/simple', 'more/simple', 'wheels/below', 'cache'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'pip.conf').write_text('[install]\nextra_index_url = https://e/simple\n    file://%s/more/simple/\n'
                                       '[nonsense\n' % tmp_path)
    monkeypatch.setenv('PIP_INDEX_URL', 'file://%s/a%%20mirror/simple' % tmp_path)
    monkeypatch.setenv('PIP_FIND_LINKS', '%s/wheels/below' % tmp_path)
    monkeypatch.setenv('PIP_CACHE_DIR', '%s/cache' % tmp_path)
    monkeypatch.setenv('PIP_CONFIG_FILE', '%s/pip.conf' % tmp_path)
    argv = add('small').argv
    binds = [value for name, value in zip(argv, argv[1:]) if name == '--bind' and str(tmp_path) in value]
    assert binds == ['%s/%s:%s/%s%s' % (tmp_path, path, tmp_path, path, '' if path == 'cache' else ':ro') for path in (
        'a mirror', 'a mirror/simple', 'cache', 'more', 'more/simple', 'pip.conf', 'wheels/below')]


def test_commands_of_the_layer_are_found_and_come_before_those_of_the_image(add):
    done = add('small', commands={'small': None, 'tool': '/usr/bin/tool', 'python': '/usr/bin/python', 'ls': '/bin/ls'})
    assert done.facts['commands'] == {
        'small': {'path': '/layer/venv/jax/bin/small', 'is_python_script': True},
        'tool': {'path': '/layer/venv/jax/bin/tool', 'is_python_script': True},
        'python': {'path': '/usr/bin/python', 'is_python_script': False},
        'ls': {'path': '/bin/ls', 'is_python_script': False}}


def test_a_command_that_neither_has_is_an_error(add):
    assert str(failure(add, 'small', commands={'smal': None, 'xyz': None})) == (
        "jax-1.eb: command 'smal' is neither in the image nor in its python_packages\n"
        "  these bring  activate, python, small, tool\nhint: did you mean 'small'?\n"
        "error: jax-1.eb: command 'xyz' is neither in the image nor in its python_packages\n"
        '  these bring  activate, python, small, tool\nhint: add the package that brings it to python_packages')


def test_what_pip_says_is_told(add):
    lines = 'Looking in indexes: http://i\nERROR: Could not find a version that satisfies small\nERROR: No match\n'
    err = failure(add, 'small==99', 'x', status=1, stdout='', stderr=lines)
    assert str(err) == ('jax-1.eb: pip could not install small==99, x (exit code 1)\n'
                        '  pip  ERROR: Could not find a version that satisfies small\n       ERROR: No match\n'
                        'hint: edit python_packages in the recipe; the image itself is fine')
    assert err.exit_code == INPUT


def test_an_index_that_cannot_be_reached_is_told(add):
    lines = ("WARNING: Location '/w' is ignored: it is a bad one.\nERROR: No matching distribution found for small\n"
             'error: pip: the package index cannot be reached\n  address  http://i/small/\n  reason   refused\n')
    err = failure(add, 'small', status=1, stdout='', stderr=lines)
    assert str(err) == (
        'jax-1.eb: pip could not install small (exit code 1)\n'
        '  pip      ERROR: No matching distribution found for small\n  address  http://i/small/\n  reason   refused\n'
        "  pip      Location '/w' is ignored: it is a bad one.\n"
        'hint: look at PIP_INDEX_URL, https_proxy and pip.conf: pip inside the image uses yours')
    assert err.exit_code == TOOL
    lines = 'ERROR: Could not install packages due to an OSError: HTTPConnectionPool: Max retries exceeded with url\n'
    err = failure(add, 'small @ http://i/s.whl', status=1, stdout='', stderr=lines)
    assert err.exit_code == TOOL and str(err).endswith('pip inside the image uses yours')


def test_what_the_image_brings_is_not_hidden_by_what_a_package_wants(add):
    lines = 'ERROR: Cannot install a\nerror: pip: jax is of the image, and protected\n  the image brings  jax==0.4\n'
    err = failure(add, 'a', status=1, stdout='', stderr=lines)
    assert str(err) == (
        'jax-1.eb: python_packages want another jax than the image has, which provides protects\n'
        '  the image has  jax==0.4\n  pip            ERROR: Cannot install a\n'
        'hint: write an older version into python_packages, or name jax there to have another one')
    assert err.exit_code == INPUT


def test_an_image_without_pip_is_an_error(add):
    assert str(failure(add, 'small', status=layer.NO_PIP, stdout='')) == (
        "jax-1.eb: python_packages is given, but the image's python has no pip\n  python  /usr/bin/python3  (3.12.1)\n"
        'hint: remove python_packages, or add pip to the image (Debian: python3-pip)')


def test_an_image_that_does_not_start_is_an_error(add):
    err = failure(add, 'small', status=255, stdout='', stderr='FATAL: no loop device\n')
    assert str(err).startswith('jax-1.eb: the image did not start to install its python_packages\n  command  ')
    assert str(err).endswith('  exit code  255\n  last line  FATAL: no loop device') and err.exit_code == TOOL


def test_a_disk_that_is_full_is_an_error(add, tmp_path, monkeypatch):
    tool = tmp_path / 'bin' / 'mksquashfs'
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "no space left" >&2\nexit 1\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', '%s:%s' % (tool.parent, os.environ['PATH']))
    err = failure(add, 'small')
    assert str(err).startswith('jax-1.eb: mksquashfs could not pack the python_packages\n  command    mksquashfs ')
    assert '  last line  no space left\nhint: df -h %s' % (tmp_path / 'root') in str(err) and err.exit_code == TOOL


# --- with images ------------------------------------------------------------------------------------------------------

@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A directory in which pip finds packages, and no index (Path)."""
    directory = tmp_path / 'wheels'
    directory.mkdir()
    for version in '12':
        library.package(directory, 'small', version, 'small')
    monkeypatch.setenv('PIP_FIND_LINKS', str(directory))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    return directory


@pytest.mark.e2e
@pytest.mark.parametrize('image', ['conda', 'venv'])
def test_packages_come_from_overlay_layer_and_image_in_this_order(images, tmp_path, wheels, image, monkeypatch):
    """Also where the image's Python is itself a virtual environment, and with conda; the layer hides its tqdm."""
    library.package(wheels, 'tqdm', '9.8', 'tqdm')
    if image == 'conda':  # a directory of pages that lead to files beside it
        for path in wheels.glob('*.whl'):
            page = wheels / 'simple' / path.name.split('-')[0] / 'index.html'
            page.parent.mkdir(parents=True, exist_ok=True)
            with page.open('a') as handle:
                handle.write('<a href="../../%s">%s</a>\n' % (path.name, path.name))
        monkeypatch.delenv('PIP_FIND_LINKS')
        monkeypatch.delenv('PIP_NO_INDEX')
        monkeypatch.setenv('PIP_INDEX_URL', 'file://%s/simple' % wheels)
    module = library.install(images.sif(image), image, tmp_path / 'prefix', python_packages=['small==1', 'tqdm==9.8'],
                             provides=['tqdm/4.66.1'],
                             **dict(library.RECIPES[image], commands=['python', 'pip', 'tqdm', 'small']))
    record = json.loads((module.root / 'easysif.json').read_text())
    assert record['inside']['provides'] == {'tqdm': '9.8'}  # as the recipe asks for it
    assert 'tqdm==9.8\n' in (module.root / 'runscripts' / 'lib' / 'constraints.txt').read_text()
    wheel = wheels / 'small-1-py3-none-any.whl'
    assert record['layer']['packages'] == [
        {'name': path.name.split('-')[0], 'version': path.name.split('-')[1], 'url': 'file://%s' % path,
         'sha256': toys.sha256(path)} for path in (wheel, wheels / 'tqdm-9.8-py3-none-any.whl')]
    assert record['files']['layer.squashfs'] == 'sha256:' + toys.sha256(module.root / 'layer.squashfs')
    before = (module.root / 'layer.squashfs').stat()
    see = ('-c', 'import small, tqdm; print(small.__version__, tqdm.__version__, small.__file__.split("/")[1])')
    assert module.run('python', *see).stdout == '1 9.8 layer\n'
    assert module.run('small').stdout == 'small 1\n' and module.run('tqdm').stdout == 'tqdm 9.8\n'
    rows = module.run('list-packages', 'small', 'tqdm', 'pip').stdout.splitlines()[1:]
    assert [row.split()[-1] for row in rows] == ['image', 'layer', 'layer']

    env = module.env(PIP_FIND_LINKS=wheels, PIP_NO_INDEX='1')
    assert 'already satisfied: small' in module.run('pip', 'install', 'small', env=env).stdout
    module.run('pip', 'install', '--quiet', 'small==2', env=env)
    assert module.run('python', *see).stdout == '2 9.8 user-software\n'
    assert module.run('small').stdout == 'small 2\n'
    assert module.run('start-shell', '-c', 'command -v small tqdm').stdout == (
        '/user-software/venv/%s/bin/small\n/layer/venv/%s/bin/tqdm\n' % ((record['layer']['venv'],) * 2))
    if image == 'venv':
        library.package(wheels, 'wants', '1', requires=['tqdm>9'])
        with pytest.raises(EasySIFError) as caught:
            library.install(images.sif(image), image, tmp_path / 'prefix', version='2', python_packages=['wants'],
                            provides=['tqdm/4.66.1'], **library.RECIPES[image])
        assert 'python_packages want another tqdm than the image has' in str(caught.value)
    nothing = module.env(EASYSIF_OVERLAYS='no absolute path')  # of somebody else, who has no place for packages
    (module.prefix / 'easysif' / 'prefix.json').chmod(0o444)
    assert module.run('python', *see, env=nothing).stdout == '2 9.8 shared-software\n'
    module.overlay.rename(tmp_path / 'gone')
    assert module.run('python', *see, env=nothing).stdout == '1 9.8 layer\n'
    assert module.run('small', env=nothing).stdout == 'small 1\n'
    assert (module.root / 'layer.squashfs').stat() == before


@pytest.mark.e2e
def test_a_recipe_with_a_layer_is_installed_by_eb(eb, shell, easysif, images, prefix, tmp_path, wheels):
    """One is a tool module, whose command the layer brings; the layer is the same each time, and users keep theirs."""
    env = {'PIP_FIND_LINKS': wheels, 'PIP_NO_INDEX': '1'}
    recipes = [toys.recipe(tmp_path, 'tool', image='python.sif', commands=['small'], python_packages=['small==1'],
                           sanity_check_commands=['small | grep -x "small 1"']),
               toys.recipe(tmp_path, 'env', image='python.sif', python_env='env', commands=['python', 'pip'],
                           python_packages=['small==%(version_major)s'],
                           sanity_check_commands=['python -c "import small"'])]
    (tmp_path / 'python.sif').symlink_to(images.sif('python'))
    eb(*recipes, '--sourcepath=%s' % tmp_path, env=env)
    said = shell('module spider small 2>&1; module load tool env; small; list-packages small').stdout
    assert re.search(r'small/1 \(E\)|small: small/1|env/1.0', said) and 'small 1\n' in said
    assert 'extensions("small/1")' in (prefix / 'modules' / 'all' / 'env' / '1.0.lua').read_text()
    shell('module load env; pip install --quiet small==2', env=env)
    overlay = toys.snapshot(prefix / 'overlays')
    first = toys.installation(prefix, 'env/1.0')[1]

    eb(*recipes, '--rebuild', env=env)
    eb(*recipes, '--rebuild', '--module-only')
    assert 'extensions("small/1")' in (prefix / 'modules' / 'all' / 'env' / '1.0.lua').read_text()
    eb(*recipes, '--sanity-check-only')
    assert toys.snapshot(prefix / 'overlays') == overlay
    assert shell('module load env; python -c "import small; print(small.__version__)"').stdout == '2\n'
    root, record = toys.installation(prefix, 'env/1.0')
    assert record['files'] == first['files'] and record['layer'] == first['layer']

    words = ('env/1.0', '--prefix', str(prefix))
    assert easysif('refresh', *words)[0] == easysif('verify', *words)[0] == 0
    assert toys.installation(prefix, 'env/1.0')[1]['layer'] == first['layer']
    (root / 'layer.squashfs').chmod(0o644)
    with open(root / 'layer.squashfs', 'ab') as handle:
        handle.write(b'x')
    assert 'layer.squashfs was changed' in easysif('verify', *words)[2]

    before = toys.snapshot(prefix)
    shutil.rmtree(wheels)
    failed = eb(recipes[0], '--rebuild', env=env, check=False)
    assert failed.status and 'pip could not install small==1 (exit code 1)' in failed.output
    assert 'No matching distribution found for small==1' in failed.output
    after = toys.snapshot(prefix)
    assert {path for path in set(before) ^ set(after) if not path.startswith('build')} == set()
    assert {path for path in before if path in after and before[path] != after[path]} == set()
    unreachable = dict(env, PIP_NO_INDEX='', PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_RETRIES='1')
    failed = eb(recipes[0], '--rebuild', env=unreachable, check=False)
    assert 'hint: look at PIP_INDEX_URL, https_proxy and pip.conf' in failed.output
