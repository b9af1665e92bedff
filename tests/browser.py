# SPDX-License-Identifier: GPL-2.0-only
"""A headless Chromium, driven by its DevTools protocol over two pipes, that reports every address it asks for."""

import fcntl
import itertools
import json
import os
import select
import socket
import subprocess
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

CHROMIUM = '/usr/bin/chromium-headless-shell'  #: Debian's package of that name
LOOPBACK = ('127.0.0.1', 'localhost')

#: each keeps Chromium from asking for something by itself; the sandbox needs namespaces that a container may not give
OPTIONS = ('--no-sandbox', '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage',
           '--disable-gpu', '--no-first-run', '--remote-debugging-pipe')


class Refusal(Exception):
    """The browser did not do what it was told."""


def _out_of_the_way(descriptor):
    """Return another descriptor for the same, which is neither of the two that Chromium is told by (int)."""
    other = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return other


class Browser:
    """The browser, with one page.

    ``requests`` are the addresses that pages asked for (list of str), ``failed`` those that were not there (list of
    str), ``strangers`` the hosts that anything in it tried
    to reach beyond this machine (list of bytes: the first line that a proxy was sent).
    """

    def __init__(self, home):
        self.requests, self.failed, self.strangers, self._events = [], [], [], []
        self._numbers, self._rest = itertools.count(1), b''
        self._proxy = socket.create_server(('127.0.0.1', 0))
        threading.Thread(target=self._listen, daemon=True).start()
        (theirs_in, self._in), (self._out, theirs_out) = os.pipe(), os.pipe()
        theirs_in, theirs_out = _out_of_the_way(theirs_in), _out_of_the_way(theirs_out)
        self.process = subprocess.Popen(
            ['/bin/bash', '-c', 'exec 3<&%d 4>&%d "$@"' % (theirs_in, theirs_out), 'bash', CHROMIUM, *OPTIONS,
             '--user-data-dir=%s' % home, '--proxy-server=127.0.0.1:%d' % self._proxy.getsockname()[1], 'about:blank'],
            pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL,
            env={'HOME': str(home), 'PATH': '/usr/bin:/bin'})
        os.close(theirs_in)
        os.close(theirs_out)
        target = self._call('Target.createTarget', url='about:blank')['targetId']
        self._session = self._call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network'):
            self.call('%s.enable' % domain)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._proxy.close()
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **values):
        """Return what a method of the protocol answers for the page (dict)."""
        return self._call(method, self._session, **values)

    def open(self, url):
        """Open an address, and wait until the page has all that it asked for."""
        del self._events[:]
        answer = self.call('Page.navigate', url=url)
        assert 'errorText' not in answer, '%s: %s' % (url, answer['errorText'])
        if 'loaderId' in answer:  # else only another place of the same page
            while 'Page.loadEventFired' not in self._events:
                self._take(self._read())

    def evaluate(self, script):
        """Return the value of a JavaScript expression in the page; it works also where pages get no JavaScript."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def wait(self, script, seconds=20):
        """Wait until a JavaScript expression is true, and return its value."""
        end = time.monotonic() + seconds
        while True:
            with suppress(Refusal):  # between two pages
                value = self.evaluate(script)
                if value:
                    return value
            assert time.monotonic() < end, 'never true: %s' % script
            time.sleep(0.05)

    def screen(self, width, height, mobile=False):
        """Give the page a screen of such a size, in pixels."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def javascript(self, allowed):
        """Let the pages that are opened from now on have JavaScript, or not."""
        self.call('Emulation.setScriptExecutionDisabled', value=not allowed)

    def scheme(self, name):
        """Let the page be shown to somebody who prefers it ``light`` or ``dark``."""
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': name}])

    def type(self, text):
        """Put in a text, and type the last letter of it on the keyboard."""
        self.call('Input.insertText', text=text[:-1])
        self.call('Input.dispatchKeyEvent', type='keyDown', text=text[-1], key=text[-1])
        self.call('Input.dispatchKeyEvent', type='keyUp', key=text[-1])

    def click(self, selector):
        """Wait for an element and press the left button of the mouse in the middle of it.

        :param selector: of CSS, for the first such element (str)
        """
        middle = '(() => { const box = document.querySelector(%s)?.getBoundingClientRect();' \
                 ' return box && box.width && [box.x + box.width / 2, box.y + box.height / 2]; })()'
        x, y = self.wait(middle % json.dumps(selector))
        for kind in ('mouseMoved', 'mousePressed', 'mouseReleased'):
            self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def strange(self):
        """Return the addresses that pages asked for and that are not on this machine (list of str)."""
        return [url for url in self.requests if urlsplit(url).scheme not in ('file', 'data', 'blob', 'about')
                and urlsplit(url).hostname not in LOOPBACK] + self.strangers

    def _call(self, method, session=None, **values):
        number = next(self._numbers)
        message = {'id': number, 'method': method, 'params': values, **({'sessionId': session} if session else {})}
        os.write(self._in, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == number:
                if 'error' in answer:
                    raise Refusal('%s: %s' % (method, answer['error']))
                return answer['result']
            self._take(answer)

    def _take(self, event):
        self._events.append(event.get('method'))
        if event.get('method') == 'Network.requestWillBeSent':
            self.requests.append(event['params']['request']['url'])
        elif event.get('method') == 'Network.responseReceived' and event['params']['response']['status'] >= 400:
            self.failed.append(event['params']['response']['url'])

    def _read(self):
        while b'\0' not in self._rest:
            assert select.select([self._out], [], [], 60)[0], 'Chromium does not answer'
            piece = os.read(self._out, 1 << 16)
            assert piece, 'Chromium has ended'
            self._rest += piece
        text, _, self._rest = self._rest.partition(b'\0')
        return json.loads(text)

    def _listen(self):
        """Be the proxy, which is asked for whatever is not on this machine: answer nothing, remember what it was."""
        while True:
            try:
                connection, _ = self._proxy.accept()
            except OSError:  # closed
                return
            with connection:
                connection.settimeout(5)
                self.strangers.append(connection.recv(4096).partition(b'\r\n')[0])
