"""DeepOBS in PyTorch: 26 test problems, runners, tuner, analyzer and the published baselines."""

from trainrig.public import public

__getattr__, __all__ = public(
    __name__,
    experiment="DeepObsConfig Runtime run",
    pytorch__datasets__dataset="DataSet",
    pytorch__datasets__image_set="ImageSet image_set",
    pytorch__testproblems="TESTPROBLEMS TestProblem",
    pytorch__runners="LearningRateScheduleRunner PTRunner StandardRunner",
    pytorch__tuner="GP GridSearch RandomSearch Tuner",
    analyzer__results="read_results",
    analyzer__plots="plot_performance plot_profiles plot_sensitivity",
    analyzer__tables="make_rows",
)
