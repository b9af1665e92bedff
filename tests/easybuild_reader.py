# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python easybuild_reader.py

Says how EasyBuild itself reads recipes: a path in JSON on each line of standard input, on each line of standard output
the parameters in JSON with their templates resolved, or in a text what EasyBuild says is wrong. In a process of its
own, as EasyBuild's configuration is one for the whole process; started once for many recipes.
"""

import json
import os
import sys

answers = os.fdopen(os.dup(1), 'w', encoding='ascii')
os.dup2(2, 1)  # what EasyBuild prints is no answer

from easybuild.framework.easyconfig.easyconfig import EasyConfig  # noqa: E402
from easybuild.tools.build_log import EasyBuildError  # noqa: E402
from easybuild.tools.options import set_up_configuration  # noqa: E402

KEYS = ('name', 'version', 'versionsuffix', 'homepage', 'description', 'image', 'digest', 'needs', 'python_env',
        'conda_env', 'commands', 'python_packages', 'container_env', 'binds', 'sanity_check_commands', 'modextravars',
        'usage')

set_up_configuration(args=['--prefix=%s' % os.environ['TMPDIR'], '--modules-tool=Lmod', '--disable-cleanup-tmpdir'],
                     silent=True)
for line in sys.stdin:
    try:
        recipe = EasyConfig(json.loads(line))
        answer = {}
        for key in KEYS:
            try:
                answer[key] = recipe[key]
            except EasyBuildError:  # a template that it does not know
                answer[key] = ['EasyBuildError']
    except (EasyBuildError, TypeError, ValueError) as err:  # the last two are defects of EasyBuild
        answer = str(err)
    answers.write(json.dumps(answer) + '\n')
    answers.flush()
