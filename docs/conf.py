"""Sphinx configuration; build with ``python -m sphinx docs docs/_build/html``."""

from importlib.util import find_spec

from ssn_estimators import __version__

project = "ssn_estimators"
author = "The ssn_estimators developers"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
html_theme = "pydata_sphinx_theme"

autosummary_generate = True
numpydoc_show_class_members = False

intersphinx_mapping = {
    "numpy": ("https://numpy.org/doc/stable", None),
    "scipy": ("https://docs.scipy.org/doc/scipy", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
}
intersphinx_timeout = 5  # s; without a network only the links to other projects are missing

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # the page of sbi is shown, but not run, where there is no sbi
    "filename_pattern": "/plot_" if find_spec("sbi") else "/plot_(?!posterior_with_sbi)",
    "doc_module": "ssn_estimators",
    "remove_config_comments": True,
    "reference_url": {"ssn_estimators": None},
}
