# SPDX-License-Identifier: GPL-2.0-only
"""Bad input through the real eb: a clear message that names recipe and field, and nothing made."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

import harness
import toys

pytestmark = pytest.mark.e2e

DIGEST = 'sha256:%064d' % 0

#: what is wrong: parameters of a recipe -> what eb prints, with its line breaks; {} are the recipe's file, the
#: directory of it and the toy image
CASES = {
    'other-key': (dict(xyzzy=1), [
        "{eb}:9: unknown key 'xyzzy'\n  ours  image, digest, image_mode, verify, build_args, needs, python_env, "]),
    'wrong-type': (dict(needs='nvidia-gpu'), [
        "{eb}:9: needs must be a list of words, not the text 'nvidia-gpu'\nhint: write needs = ['nvidia-gpu']"]),
    'two-problems': (dict(container_env=['A=1'], binds=['relative']), [
        "{eb}:9: container_env must be a mapping of variables to texts, not the list ['A=1']\n",
        "{eb}:10: binds[0] must be an absolute path, not 'relative'"]),
    'template': (dict(image='toy-%(versio)s.sif'), [
        "{eb}:7: image has the unknown template '%(versio)s'", "hint: did you mean '%(version)s'?"]),
    'no-file': (dict(image='absent.sif'), [
        '{eb}: image file not found: absent.sif\n  searched  {dir}/store, {dir}/sources, {toys}, beside the recipe\n'
        'hint: add its directory with --sourcepath, or download it first']),
    'no-definition': (dict(image='absent.def'), [
        '{eb}: definition file not found: absent.def\n  searched  {dir}/sources, {toys}, beside the recipe\n'
        'hint: put it beside the recipe, or add its directory with --sourcepath']),
    'unreachable': (dict(image='docker://127.0.0.1:1/x/y:1'), [
        "{eb}: image 'docker://127.0.0.1:1/x/y:1' is not to be had\n  127.0.0.1:1  no connection (Connection refused)\n"
        'hint: check the network: ']),
    'no-tag': (dict(image='docker://docker.io/stand-in/busybox:no-such-tag'), [
        "{eb}: image 'docker://docker.io/stand-in/busybox:no-such-tag' is not to be had\n",
        '  no such image (HTTP 404)\n']),
    'html': (dict(image='html.sif'), [
        '{eb}: image is no SIF file: {dir}/html.sif\n  found  a web page, 44 bytes\n'
        'hint: the server sent a page instead of the file']),
    'truncated': (dict(image='truncated.sif'), [
        '{eb}: image is not complete: {dir}/truncated.sif\n  size    500000 bytes\n']),
    'wrong-digest': (dict(digest=DIGEST), [
        '{eb}: digest does not match the image\n  recipe  ' + DIGEST + '\n  found   {digest}  ({toys}/toy.sif)\n'
        "hint: fetch the file again; if it is the right one, write digest = '{digest}'"]),
    'wrong-checksum': (dict(image='toy.def', checksums=[DIGEST[7:]]), [
        '{eb}: checksums do not match {dir}/toy.def\n  recipe  ' + DIGEST[7:] + '\n  found   {definition}\n'
        'hint: review the file']),
    'wrong-checksum-of-store': (dict(image='stored.sif', checksums=[DIGEST[7:]]), [
        '{eb}: checksums do not match {dir}/store/stored.sif\n  recipe  ' + DIGEST[7:] + '\n  found   ']),
    'digest-of-definition': (dict(image='toy.def', digest=DIGEST), [
        '{eb}:9: digest does not go with a definition file']),
    'no-python': (dict(python_env='toy'), [
        '{eb}: python_env is given, but the image has no python\n', 'hint: remove python_env, or take an image that']),
    'no-command': (dict(commands=['fin', 'sh']), [
        "{eb}: command 'fin' is not in the image\n  closest  fine\nhint: list what the image has: apptainer exec "]),
    'orphan': (dict(commands=['orphan']), [
        "{eb}: command 'orphan' does not start inside the image\n  command    ",
        '\n  exit code  255\n  last line  FATAL: ', '\nhint: apptainer exec {toys}/toy.sif orphan --version']),
    'crash': (dict(commands={'dies': 'crashes now'}), [
        "{eb}: command 'dies' does not start inside the image\n", '\n  exit code  killed by SIGSEGV\n'
        'hint: apptainer exec {toys}/toy.sif crashes now --version']),
    'no-need': (dict(needs=['amd-gpus']), [
        "{eb}: needs 'amd-gpus', which site 'site' does not provide\n  provided  amd-gpu, ca-certificates, nvidia-gpu, "
        "x11\n"
        "hint: did you mean 'amd-gpu'? a new feature goes into {dir}/site.yaml"]),
    'own-test': (dict(commands=['fails'], sanity_check_commands=['fails now']), [
        'sanity check command fails now failed with exit code 3']),
}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    """Where the recipes of CASES are (Path)."""
    return tmp_path_factory.mktemp('bad')


@pytest.fixture(scope='module')
def printed(directory, toy, registry):
    """What one eb over all recipes of CASES printed of each: name -> text (dict)."""
    (directory / 'html.sif').write_text('<!DOCTYPE html><title>please log in</title>\n')
    (directory / 'truncated.sif').write_bytes(toy.read_bytes()[:500000])
    (directory / 'toy.def').write_text('Bootstrap: docker\nFrom: docker.io/stand-in/busybox:1\n')
    (directory / 'store').mkdir()
    (directory / 'store' / 'stored.sif').symlink_to(toy)
    settings = dict(harness.site_settings(registry), image_store=str(directory / 'store'))
    (directory / 'site.yaml').write_text(yaml.safe_dump(settings))
    recipes = [toys.recipe(directory, name, **values) for name, (values, _) in CASES.items()]
    result = harness.run_eb([*recipes, '--sourcepath=%s:%s' % (directory / 'sources', toy.parent),
                             '--dump-test-report=%s' % (directory / 'report')], directory / 'prefix',
                            directory / 'home', directory / 'site.yaml', check=False)
    assert result.status != 0
    parts = result.output.split('== processing EasyBuild easyconfig ')[1:]
    return {os.path.basename(part.split('\n', 1)[0]): part for part in parts}


@pytest.mark.parametrize('name', CASES)
def test_bad_input_is_told_and_makes_nothing(printed, directory, toy, name):
    text, recipe = printed[name + '-1.0.eb'], name + '-1.0.eb'
    for words in CASES[name][1]:
        for key, value in {'eb': recipe, 'dir': directory, 'toys': toy.parent, 'digest': 'sha256:' + toys.sha256(toy),
                           'definition': toys.sha256(directory / 'toy.def')}.items():
            words = words.replace('{%s}' % key, str(value))
        assert words in text
    assert '== FAILED: Installation ended unsuccessfully: ' in text and 'Traceback' not in text
    prefix = directory / 'prefix'
    assert [path for path in prefix.rglob('*') if name.replace('-', '') in path.name.replace('-', '')] == []


def test_what_failed_leaves_no_file(printed, directory):
    assert toys.files(directory / 'prefix') == set()
    assert toys.files(directory / 'sources') == set()


def test_an_unknown_key_is_told_with_the_likely_one(eb, tmp_path, prefix):
    result = eb(toys.recipe(tmp_path, comands=['sh']), check=False)
    assert result.status != 0
    assert 'toy-1.0.eb: You may have some typos in your easyconfig file: comands -> commands' in result.output
    assert toys.files(prefix) == set()


@pytest.fixture
def refused(eb, tmp_path, toy):
    """A function that runs eb where it must fail at once, asserts what it says, and that nothing was made."""
    def call(*words, prefix, args=(), **options):
        before = toys.snapshot(prefix.parent)
        result = eb(toys.recipe(tmp_path / 'eb', commands=['fine']), '--sourcepath=%s' % toy.parent, *args,
                    prefix=prefix, check=False, **options)
        assert result.status != 0
        for expected in words:
            assert expected in result.output
        assert 'fetching' not in result.output
        after = toys.snapshot(prefix.parent)
        # before any of ours, eb itself makes the empty directory of modules
        assert {path for path in after if after[path][1]} == {path for path in before if before[path][1]}
    return call


def path_without(directory, *names):
    """Return a PATH on which some commands are not (str)."""
    directory.mkdir()
    for place in harness.SYSTEM_PATH.split(':'):
        for path in Path(place).iterdir():
            link = directory / path.name
            if path.name not in names and not link.is_symlink():
                link.symlink_to(path)
    return str(directory)


def test_no_container_runtime(refused, tmp_path, clone):
    path = '%s:%s' % (clone / 'tools' / 'bin', harness.SYSTEM_PATH)
    refused('toy-1.0.eb: no container runtime: neither apptainer nor singularity is on PATH\n'
            'hint: module load apptainer, or set runtime in your site file',
            prefix=tmp_path / 'a' / 'prefix', env={'PATH': path})


@pytest.mark.parametrize('tool', ['mksquashfs', 'unsquashfs'])
def test_no_squashfs_tools(refused, tmp_path, clone, tool):
    path = '%s:%s:%s' % (clone / 'tools' / 'bin', harness.CACHE / 'runtime' / 'bin', path_without(tmp_path / 'p', tool))
    refused('toy-1.0.eb: %s is not on PATH\nhint: ask for the package squashfs-tools' % tool,
            prefix=tmp_path / 'a' / 'prefix', env={'PATH': path})


@pytest.mark.parametrize('name, who, named', [
    ('a:b', 'bind lists', 'colon, comma, newline'), ('a,b', 'bind lists', 'colon, comma, newline'),
    ('a"b', "EasyBuild's modulefiles", 'double quote, backslash'),
    ('a\\b', "EasyBuild's modulefiles", 'double quote, backslash')])
def test_a_prefix_that_cannot_be_used(refused, tmp_path, name, who, named):
    prefix = tmp_path / 'a' / name
    refused('toy-1.0.eb: the prefix holds a character that %s cannot carry\n' % who, '  prefix      %r\n' % str(prefix),
            '  characters  %s\nhint: eb --prefix <another directory> toy-1.0.eb' % named, prefix=prefix)


def test_a_read_only_prefix(refused, tmp_path):
    prefix = tmp_path / 'a' / 'prefix'
    (prefix / 'modules' / 'all').mkdir(parents=True)
    (prefix / 'software').mkdir()
    (prefix / 'software').chmod(0o555)
    refused('toy-1.0.eb: the prefix is read-only for you\n  prefix        %s\n  not writable  %s/software\n'
            % (prefix, prefix), 'hint: eb --prefix <a directory of yours> toy-1.0.eb', prefix=prefix)


def test_a_module_of_the_same_name_that_is_loaded(refused, tmp_path):
    refused('toy-1.0.eb: a module of toy is loaded\n  EBROOTTOY  /some/where\n'
            'hint: module unload toy, then the same again', prefix=tmp_path / 'a' / 'prefix',
            env={'EBROOTTOY': '/some/where'})


@pytest.mark.parametrize('name', ['a b', 'a$b', 'a[b', 'a{b', 'a;b'])
def test_a_prefix_that_modules_in_tcl_cannot_carry(refused, tmp_path, name):
    prefix = tmp_path / name / 'prefix'
    refused("toy-1.0.eb: the prefix holds a character that EasyBuild's modulefiles in Tcl cannot carry\n"
            "  prefix      '%s'\n  characters  blank, tab, dollar, brackets, braces, semicolon\n" % prefix,
            'hint: eb --prefix <another directory> toy-1.0.eb', prefix=prefix, args=['--module-syntax=Tcl'])


def test_library_and_easyblock_of_different_versions(refused, tmp_path, clone):
    other = tmp_path / 'other' / 'easysif'
    shutil.copytree(clone / 'tools' / 'easysif', other)
    (other / '__init__.py').write_text("__version__ = '9.9'\n")
    refused('containerimage.py: easyblock and library are of different versions\n  easyblock  ',
            '  library    9.9  (%s/__init__.py)\nhint: unset PYTHONPATH, or source tools/env.sh of one clone' % other,
            prefix=tmp_path / 'a' / 'prefix', env={'PYTHONPATH': '%s:%s' % (other.parent, clone)})
