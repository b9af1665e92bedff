# SPDX-License-Identifier: GPL-2.0-only
"""Usage: imported by ranks.py

What connects the ranks of a job step: lines of JSON, and ports that two steps never share. Runs under every Python that
images have, so it uses old syntax only.
"""

import json
import resource
import socket


class Link(object):
    """A connection that carries one JSON object a line."""

    def __init__(self, connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (('TCP_KEEPIDLE', 30), ('TCP_KEEPINTVL', 10), ('TCP_KEEPCNT', 3),
                            ('TCP_USER_TIMEOUT', 60000)):
            if hasattr(socket, name):  # a node that died says nothing
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection, self.left, self.rank, self.host = connection, b'', None, ''
        self.is_over = False

    def send(self, **words):
        """Send an object; one who is gone is found out by reading."""
        try:
            self.connection.sendall(json.dumps(words).encode() + b'\n')
        except EnvironmentError:
            pass

    def read(self):
        """Return the objects that have come (list of dict), None where the connection has ended."""
        try:
            data = self.connection.recv(65536)
        except EnvironmentError:
            return None
        lines = (self.left + data).split(b'\n')
        self.left = lines.pop()
        if not data or len(self.left) > 65536:
            return None
        try:
            found = [json.loads(line.decode()) for line in lines]
        except ValueError:
            return None
        return found if all(isinstance(one, dict) for one in found) else None


def allow_files(number):
    """Let this process have so many files open, connections among them; return whether it may (bool)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        return False
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    return True


def reserve(port):
    """Return what keeps other job steps on this node from a port (socket), None where one of them or anybody has it."""
    ticket, trial = socket.socket(socket.AF_UNIX), socket.socket()
    try:
        ticket.bind('\0easysif-port-%d' % port)
        trial.bind(('', port))
        return ticket
    except EnvironmentError:
        ticket.close()
        return None
    finally:
        trial.close()


def take_two(ports, others):
    """Take the first two ports that are free, and listen at the first of them where there are others.

    :param ports: which may be taken (list of int)
    :param others: how many are to come (int)
    :returns: the ports (list of int), what keeps other job steps from them, and what listens (socket or None)
    """
    free, tickets, server = [], [], None
    for port in ports:
        ticket = reserve(port) if len(free) < 2 else None
        if ticket and others and not free:
            server = serve(port, others)
        if ticket and (free or server or not others):
            free.append(port)
            tickets.append(ticket)
        elif ticket:  # somebody was faster
            ticket.close()
    return free, tickets, server


def serve(port, others):
    """Return a socket that listens at a port for so many others (socket), None where somebody has taken it by now."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(('', port))
        server.listen(min(others, 4096))
        return server
    except EnvironmentError:
        server.close()
        return None
