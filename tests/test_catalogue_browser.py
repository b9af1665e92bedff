# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue in a browser: search, links, phones, without JavaScript, pictures, nothing that leaves the machine."""

import functools
import http.server
import json
import threading
import time
from urllib.parse import unquote, urlsplit

import pytest

from browser import Browser

pytestmark = pytest.mark.e2e

PHONE = (360, 800)

#: what a page has of links, where they lead, and places to which links lead
LINKS = '[...document.querySelectorAll("a[href]")].map(one => one.href)'
PLACES = '[...document.querySelectorAll("[id]")].map(one => one.id)'

#: pixels of the smallest text in the article that is not in a table or a block of code
SMALLEST = '''Math.min(...[...document.querySelectorAll("article p, article dd, article li, article svg text")]
    .filter(one => one.textContent.trim()).map(one => parseFloat(getComputedStyle(one).fontSize)
        * (one.ownerSVGElement ? one.getScreenCTM().a : 1)))'''

#: how much darker or lighter text is than what lies behind it, as WCAG computes it
CONTRAST = '''(() => {
    const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
        .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const alpha = text => +(text.match(/[\\d.]+/g)[3] ?? 1);
    const behind = light(getComputedStyle(document.body).backgroundColor);
    return Math.min(...[...document.querySelectorAll("article svg text, article p")].map(one => {
        const color = getComputedStyle(one)[one.ownerSVGElement ? "fill" : "color"];
        const seen = light(color) * alpha(color) + behind * (1 - alpha(color));
        return (Math.max(seen, behind) + 0.05) / (Math.min(seen, behind) + 0.05);
    }));
})()'''


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files below ``/any/where/`` and tells nothing."""

    def translate_path(self, path):
        return super().translate_path(path[len('/any/where'):] if path.startswith('/any/where/') else '/nowhere')

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def site(catalogue):
    """The address of the catalogue on a web server of this machine (str)."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=catalogue.output))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield 'http://127.0.0.1:%d/any/where/' % server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def browser(tmp_path):
    """A browser with a profile of its own, which must not have asked any other machine for anything (Browser)."""
    with Browser(tmp_path / 'profile') as running:
        running.screen(1300, 900)
        yield running
        assert running.requests and running.strange() == []


@pytest.fixture(params=['server', 'file'])
def address(request, site, catalogue):
    """The address of the catalogue, on a web server and as a file (str)."""
    return site if request.param == 'server' else catalogue.output.as_uri() + '/'


def pages(catalogue):
    """Return all pages (list of str)."""
    return sorted(str(path.relative_to(catalogue.output)) for path in catalogue.output.rglob('*.html'))


def search(browser, words):
    """Type words into the search, and return where it leads (list of str)."""
    browser.evaluate('document.querySelector("input.md-search__input").focus()')
    browser.wait('!/^(|Initializing search)$/.test(document.querySelector(".md-search-result__meta").innerText.trim())')
    browser.type(words)
    browser.wait('document.querySelectorAll(".md-search-result__link").length')
    return browser.evaluate('[...document.querySelectorAll(".md-search-result__link")].map(one => one.href)')


def test_the_search_finds_commands_and_packages_and_leads_there(browser, address):
    for words, wanted in {'toy-tool': 'software/toy/toy-0.9.html', 'inside_package': 'software/toy/toy-1.html',
                          'vllm': 'software/PyTorch/'}.items():
        browser.open(address + 'index.html')
        found = search(browser, words)
        assert any(wanted in link for link in found[:3]), (words, found)
    browser.open(address + 'software/toy/toy-1.html')
    search(browser, 'toy-tool')
    click(browser, '.md-search-result__link')
    browser.wait('document.title.startsWith("toy 0.9")')


def test_without_javascript_every_page_can_be_read_on_a_phone_and_every_link_leads_somewhere(browser, site, catalogue):
    browser.screen(*PHONE, mobile=True)
    browser.javascript(False)
    links, places = {}, {}
    for page in pages(catalogue):
        browser.open(site + page)
        check_on_phone(browser)
        links[page], places[unquote(site + page)] = browser.evaluate('[%s, %s]' % (LINKS, PLACES))
    found = {(page, link) for page, there in links.items() for link in there}
    assert len(places) > 60 and {urlsplit(link).scheme for _, link in found} == {'http', 'https'}
    assert [pair for pair in found if pair[1].startswith('http://127.') and not is_there(pair[1], places)] == []
    assert browser.failed == []


def is_there(link, places):
    """Tell whether a link leads to a page, and to a place on it that is there (bool)."""
    page, _, place = unquote(link).partition('#')
    page += 'index.html' if page.endswith('/') else ''
    return page in places and (not place or place in places[page])


def check_on_phone(browser):
    """Make sure that the page is no wider than the phone, has text, and no text that is too small."""
    url, wide, smallest, text = browser.evaluate('[location.href, document.scrollingElement.scrollWidth, %s, '
                                                 'document.querySelector("article").innerText]' % SMALLEST)
    assert wide <= PHONE[0] and smallest >= 13 and len(text) > 60, (url, wide, smallest, text)


def test_pages_can_be_read_on_a_phone_and_no_request_leaves_the_machine(browser, site, catalogue):
    browser.screen(*PHONE, mobile=True)
    there = [page for page in pages(catalogue) if '/' not in page or 'exampleVenv' in page
             or page.startswith(('software/toy/', 'software/a_b', 'manual/s'))]
    for page in there:
        browser.open(site + page)
        check_on_phone(browser)
    assert len(there) > 9
    assert browser.failed == [] and [url for url in browser.requests if not url.startswith((site, 'data:'))] == []
    assert len(browser.requests) > 5 * len(there) and browser.strange() == []


def test_without_javascript_one_gets_around_by_menu_and_links(browser, address):
    browser.screen(*PHONE, mobile=True)
    browser.javascript(False)
    browser.open(address + 'index.html')
    click(browser, 'label.md-header__button[for=__drawer]')
    assert browser.wait('document.querySelector("#__drawer").checked')
    click(browser, '.md-nav--primary a[href="sites.html"]')
    browser.wait('document.title.startsWith("Sites")')
    click(browser, 'article a[href="software/toy/toy-1.html"]')
    browser.wait('document.title.startsWith("toy 1")')
    assert 'module load toy/1' in browser.evaluate('document.querySelector("article").innerText')
    assert not browser.evaluate('document.querySelector(".md-search").offsetWidth')  # no search that does nothing


def click(browser, what):
    """Click at the middle of an element, when it stands still."""
    place = 'JSON.stringify((box => [box.x + box.width / 2, box.y + box.height / 2])(' \
            'document.querySelector(%s).getBoundingClientRect()))' % json.dumps(what)
    browser.evaluate('document.querySelector(%s).scrollIntoView({block: "center"})' % json.dumps(what))
    before = None
    while before != (before := browser.evaluate(place)):
        time.sleep(0.1)
    x, y = json.loads(before)
    for kind in ('mousePressed', 'mouseReleased'):
        browser.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_pictures_have_a_name_and_can_be_read_in_light_and_dark(browser, site, scheme):
    browser.scheme(scheme)
    browser.open(site + 'life.html')
    dark = browser.evaluate('getComputedStyle(document.body).backgroundColor') != 'rgb(255, 255, 255)'
    assert dark == (scheme == 'dark')
    assert browser.evaluate(CONTRAST) >= 4.5
    tree = browser.call('Accessibility.getFullAXTree')['nodes']
    named = {node['name']['value']: node['description']['value'] for node in tree
             if node.get('role', {}).get('value') in ('image', 'img') and 'description' in node}
    assert set(named) == {'The life of an install', 'The life of an overlay'}
    assert all(len(one) > 99 for one in named.values())


def test_a_request_that_leaves_the_machine_would_be_seen(browser, site):
    browser.open(site + 'life.html')
    browser.evaluate('void (document.body.append(new Image()), document.images[0].src = "http://elsewhere.example/x")')
    browser.evaluate('void fetch("https://elsewhere.example/y").catch(() => 0)')
    end = time.monotonic() + 20
    while len(browser.strange()) < 4 and time.monotonic() < end:
        browser.evaluate('1')
    assert sorted(map(str, browser.strange())) == [
        "b'CONNECT elsewhere.example:443 HTTP/1.1'", "b'GET http://elsewhere.example/x HTTP/1.1'",
        'http://elsewhere.example/x', 'https://elsewhere.example/y']
    del browser.requests[1:], browser.strangers[:]


def test_no_text_of_a_recipe_becomes_a_script(browser, site):
    for page in ('index.html', 'find.html', 'software/a_b.c+d/index.html', 'software/a_b.c+d/a_b.c+d-1_0+x.html',
                 'software/built/built-1.html'):
        browser.open(site + page)
        if page == 'index.html':
            assert search(browser, 'window hacked')
        assert browser.evaluate('[window.hacked, document.querySelectorAll("article script, article img").length]') == [
            None, 0]
