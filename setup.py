"""Everything is declared in setup.cfg; this file lets tools without PEP 517 build the package."""

from setuptools import setup

setup()
