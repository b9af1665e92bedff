# SPDX-License-Identifier: GPL-2.0-only
"""Many eb at once that want the same image: it is fetched once."""

from collections import Counter

import pytest

import toys
from image_scene import DEFINITION, check
from test_meeting import DONE, MANY, WORK, together

pytestmark = pytest.mark.e2e

#: which requests bring the image, and how many there may be: of a web server the file is looked at by each first
BODIES = {'docker': ('/blobs/', None), 'oras': ('/x/sif/blobs/', 1), 'https': ('/toy.sif', MANY + 1)}


def fetched(server, way, begin):
    """Return how often each part of an image was asked for (Counter), beginning with a request (int)."""
    part, _ = BODIES[way]
    return Counter(path for path, _ in server.seen[begin:] if part in path)


@pytest.mark.fault('8 installs of one recipe at once, whose image comes by a network: it is fetched once')
@pytest.mark.parametrize('way', ['docker', pytest.param('https', marks=pytest.mark.nightly)])
def test_one_of_many_fetches_and_the_others_find_it_installed(image_scenes, server, moment, way):
    scene = image_scenes[0]
    scene.undisturbed(way)
    begin = len(server.seen)
    results = together(scene, [scene.ways[way]] * MANY, '--wait-on-lock-limit=-1')
    for status, output in results:
        with moment():
            assert status == 0, output
    assert sum(WORK in output for _, output in results) == 1
    counts = fetched(server, way, begin)
    # one looks at the file, and then fetches it; of an image in a registry the configuration is read, and fetched
    assert max(counts.values()) == 2 and all(count == 1 for path, count in counts.items() if is_layer(server, path))
    check(scene, way, True)
    scene.reset()


def is_layer(server, path):
    """Tell whether it is a layer of an image, and not its configuration (bool)."""
    return '/blobs/' in path and callable(server.answers[path])


@pytest.mark.fault('8 installs of 8 recipes at once with the same image, which is fetched once')
@pytest.mark.parametrize('way', ['docker', 'https', pytest.param('oras', marks=pytest.mark.nightly)])
def test_many_recipes_share_one_image(image_scenes, server, moment, way):
    scene = image_scenes[0]
    begin, versions = len(server.seen), ['2.%d' % number for number in range(MANY)]
    recipes = [scene.recipe(scene.directory / way, version, 5, image=scene.images[way]) for version in versions]
    results = together(scene, recipes)
    said, inodes = scene.look(), set()
    for version, (status, output) in zip(versions, results):
        with moment():
            assert (status, said.pop('toy/' + version)) == (0, '5') and DONE in output, output
            root, manifest = toys.installation(scene.prefix, 'toy/' + version)
            inodes.add((root / manifest['image']['file']).stat().st_ino)
    assert len(inodes) == 1
    counts = fetched(server, way, begin)
    if way == 'https':
        assert counts == {'/toy.sif': MANY + 1}
    else:
        assert [count for path, count in counts.items() if is_layer(server, path)] == [1]
    scene.remove(*versions)
    check(scene, way, False)


@pytest.mark.fault('2 installs at once of definitions with one base, which is fetched once')
def test_definitions_share_one_base(image_scenes, server, moment):
    scene = image_scenes[0]
    begin, versions, recipes = len(server.seen), ['3.0', '3.1'], []
    for version in versions:
        directory = scene.directory / ('definition ' + version)
        directory.mkdir()
        (directory / 'toy.def').write_text(DEFINITION + '    echo %s >/made\n' % version)
        recipes.append(scene.recipe(directory, version, 5, image='toy.def'))
    results, said = together(scene, recipes), scene.look()
    for version, (status, output) in zip(versions, results):
        with moment():
            assert (status, said.pop('toy/' + version)) == (0, '5') and DONE in output, output
    counts = fetched(server, 'docker', begin)
    assert [count for path, count in counts.items() if is_layer(server, path)] == [1]
    scene.remove(*versions)
    check(scene, 'definition', False)
