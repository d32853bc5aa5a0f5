"""Ptychography in PyTorch: physics, network, workflows and the surface that Ptychodus selects.

Importing this package loads neither torch nor lightning; each module imports what it needs.
"""

from trainrig.public import public

__getattr__, __all__ = public(
    __name__,
    config__canonical="InferenceConfig ModelConfig TrainingConfig",
    config__execution="ExecutionConfig",
    raw_data="RawDataTorch load_data",
    data_container="PtychoDataContainerTorch",
    model="PtychoPINN_Lightning",
    network__pinn="PtychoPINN",
    physics__simulate="SimulationSettings simulate",
    physics__metrics="frc score",
    recon__hybrid="hybrid",
    recon__inference="load_reconstruction reconstruct",
    recon__persistence="load_model",
    recon__refine="RefineSettings refine",
    scan__npz_format="write_scan",
    train__experiment="run",
    train__workflows="run_cdi_example_with_backend",
)
