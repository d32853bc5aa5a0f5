"""The shared core: configuration, data, models, optimizers, checkpoints, runs and sweeps."""

from trainrig.public import public

__getattr__, __all__ = public(
    __name__,
    recorder="Intervals Recorder recorded",
    loop="every train_steps",
    optim="OPTIMIZERS make_optimizer resolve_optimizer",
    seeding="derive_seed make_deterministic set_seed",
    checkpoint="latest_checkpoint save_checkpoint",
    config="apply_overrides load_config",
    run_status="RunResult",
    data__catalogue="DataSet Images",
    data__image_sets="load_image_set",
    sweep="Task run_tasks",
    results="load load_curves",
    stats="mean_and_sd welch",
)
