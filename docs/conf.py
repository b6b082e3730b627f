"""Sphinx configuration; build with ``python -m sphinx docs docs/_build/html``."""

import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

from ssn_estimators import __version__
from ssn_estimators._sklearn import DOCUMENTATION

sys.path.insert(0, str(Path(__file__).parent))  # of gallery_order.py

project = "ssn_estimators"
author = "The ssn_estimators developers"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "myst_parser",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
if find_spec("sphinx-mathjax-offline"):  # MathJax comes with the site, not from another one
    extensions.append("sphinx-mathjax-offline")
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]

html_theme = "pydata_sphinx_theme"
html_title = "ssn_estimators"
html_baseurl = f"{DOCUMENTATION}/"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}  # or the theme complains in the console
html_theme_options = {
    "github_url": "https://github.com/ssn-estimators/ssn_estimators",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
}
ALONE = ("index", "install", "start", "howto", "faq", "glossary")  # pages without others below them
BEHIND = ("reliability", "growth", "tasks_in_time", "table1", "changelog", "contributing")
html_sidebars = {page: [] for page in (*ALONE, *BEHIND)}

autosummary_generate = True
numpydoc_show_class_members = False
add_module_names = False
autodoc_typehints = "none"  # the texts have them, with shapes
toc_object_entries_show_parents = "hide"

OTHERS = {
    "joblib": "https://joblib.readthedocs.io/en/stable",
    "numpy": "https://numpy.org/doc/stable",
    "python": "https://docs.python.org/3",
    "scipy": "https://docs.scipy.org/doc/scipy",
    "sklearn": "https://scikit-learn.org/stable",
    "torch": "https://docs.pytorch.org/docs/stable",
}


def is_reachable(url):
    try:
        urlopen(f"{url}/objects.inv", timeout=5).close()  # s
    except OSError:
        return False
    return True


intersphinx_mapping = {name: (url, None) for name, url in OTHERS.items() if is_reachable(url)}

nitpicky = True
nitpick_ignore_regex = [
    # names of other projects are links only where these can be reached
    (r"py:.*", r"(collections|joblib|np|numpy|scipy|sklearn|torch)\..*"),
    # labels and terms in texts that methods have from scikit-learn
    (r"(std:)?ref", r"accuracy_score|df_output_transform|r2_score|sphx_glr_auto_examples_misc.*"),
]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # the page of sbi is shown, but not run, where there is no sbi
    "filename_pattern": "/plot_" if find_spec("sbi") else "/plot_(?!posterior_with_sbi)",
    "within_subsection_order": "gallery_order.TutorialsFirst",
    "doc_module": ("ssn_estimators",),
    "backreferences_dir": "generated/backreferences",
    "remove_config_comments": True,
    "write_computation_times": False,  # its table needs a script of another site
    "reference_url": {"ssn_estimators": None},
}


def _skip(app, kind, name, value, skip, options):
    """Leave out the routing of metadata, which is scikit-learn's and the same everywhere."""
    return True if name == "get_metadata_routing" or name.endswith("_request") else None


def setup(app):
    app.connect("autodoc-skip-member", _skip)
