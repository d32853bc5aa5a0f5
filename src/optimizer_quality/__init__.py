"""Do optimizers find different solutions? Deterministic training and the measures that compare."""

from trainrig.public import public

__getattr__, __all__ = public(
    __name__,
    config="CifarConfig OptimizerConfig",
    experiment="Runtime run",
    data="get_cifar10_dataloaders make_loaders save_split_indices",
    models="ResNet ResNet20 ResNet8 build_model",
    utils="get_optimizer save_final_model set_seed setup_logging",
    solutions="load_solutions",
    sweep="parse_grid plan_runs",
    measures__barrier="loss_line",
    measures__curvature="HessianOperator lanczos",
    measures__predictions="calibration disagreement",
    measures__similarity="cka",
)
