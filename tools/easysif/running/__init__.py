# SPDX-License-Identifier: GPL-2.0-only
"""What users do after an installation: many nodes, one mount a node, Jupyter kernels, single commands, desktops."""
