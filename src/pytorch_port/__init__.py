"""Emergent in-context learning: DeepMind's transformer on Omniglot and symbolic sequences."""

from trainrig.public import public

__getattr__, __all__ = public(
    __name__,
    config__schema="IclConfig",
    config__files="load_icl_config",
    config__runtime="Runtime",
    data__generator="SeqGenerator",
    data__loading="create_sequence_dataloader make_spec",
    data__partition="ClassPartition",
    data__sampler="IndexSampler SequenceSpec",
    data__inputs="load_inputs",
    model__assembly="build_icl_model make_icl_optimizer",
    model__embedding="InputEmbedder",
    model__jax_weights="export_jax_weights load_jax_weights",
    train__losses="icl_loss",
    model__sequence_models="SEQ_MODELS build_model",
    train__evaluation="EVALUATION_METRICS evaluate evaluate_run",
    train__experiment="run",
)
