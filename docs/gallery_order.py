"""The order of the gallery: tutorials, then pages on one method each."""

TUTORIALS = (
    "plot_physiology.py",
    "plot_digits.py",
    "plot_posterior_sampling.py",
    "plot_fit_size_and_contrast.py",
    "plot_fit_traces.py",
    "plot_tasks_in_time.py",
)


class TutorialsFirst:
    """Key of a script, by the name of its file."""

    def __init__(self, folder):
        pass

    def __call__(self, name):
        return (TUTORIALS.index(name) if name in TUTORIALS else len(TUTORIALS), name)

    def __repr__(self):
        return type(self).__name__  # in what the build compares with the one before
