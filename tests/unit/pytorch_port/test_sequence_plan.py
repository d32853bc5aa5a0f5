import pytest

from pytorch_port.config.schema import SeqConfig
from pytorch_port.data.labels import bursty_labelings, parse_labeling
from pytorch_port.data.modes import MODES, mode_call, mode_plan
from pytorch_port.data.partition import ClassPartition
from pytorch_port.data.plan import make_plan

PARTITION = ClassPartition(100, 60, 12, 8)
BURSTY = {"seq_len": 9, "shots": 3, "ways": 2, "p_bursty": 0.9, "p_bursty_zipfian": 1.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ordered", ("ordered", 0, 1, False)),
        ("original", ("original", 0, 1, False)),
        ("unfixed", ("unfixed", 0, 1, False)),
        ("ordered180", ("shifted", 180, 1, False)),
        ("ordered7_polysemy3", ("shifted", 7, 3, True)),
        ("ordered0_polysemy1", ("shifted", 0, 1, True)),
    ],
)
def test_labelings_are_parsed(name, expected):
    found = parse_labeling(name)
    assert (found.kind, found.start, found.factor, found.polysemous) == expected


@pytest.mark.parametrize("name", ["orderd", "ordered_polysemy3", "ordered0_polysemy0", "ordered-1"])
def test_bad_labelings_are_refused(name):
    with pytest.raises(ValueError, match="labeling: "):
        parse_labeling(name)


def test_bursty_polysemy_moves_the_common_labels_behind_the_rare_ones():
    assert bursty_labelings("original", "ordered_polysemy3", 60) == (
        "ordered180",
        "ordered0_polysemy3",
    )
    assert bursty_labelings("ordered", "unfixed", 60) == ("ordered", "unfixed")


@pytest.mark.parametrize(
    ("method", "args", "bound"),
    [
        ("get_bursty_seq", {**BURSTY, "labeling_rare": "ordered"}, 72),
        ("get_fewshot_seq", {"class_type": "holdout", "shots": 4, "ways": 2}, 2),
        (
            "get_fewshot_seq",
            {"class_type": "holdout", "shots": 4, "ways": 2, "labeling": "ordered"},
            80,
        ),
        ("get_random_seq", {"class_type": "rare", "seq_len": 9, "labeling": "ordered5"}, 65),
        (
            "get_random_seq",
            {"class_type": "rare", "seq_len": 9, "labeling": "ordered0_polysemy3"},
            180,
        ),
        ("get_mixed_seq", {"shots": 4, "ways": 2, "p_fewshot": 0.5}, 72),
    ],
)
def test_label_bounds(method, args, bound):
    assert make_plan(PARTITION, method, args).label_bound(PARTITION) == bound


@pytest.mark.parametrize(
    ("method", "args", "message"),
    [
        ("get_burst_seq", {}, "did you mean 'get_bursty_seq'"),
        ("get_bursty_seq", {**BURSTY, "seqlen": 9}, "did you mean 'seq_len'"),
        ("get_bursty_seq", {"seq_len": 9}, "'shots', 'ways', 'p_bursty'"),
        ("get_bursty_seq", {**BURSTY, "seq_len": 6}, "at least 7"),
        ("get_bursty_seq", {**BURSTY, "p_bursty": 1.5}, "1.5 is no probability"),
        ("get_bursty_seq", {**BURSTY, "p_bursty_common": 0.5}, "exceeds 1"),
        ("get_bursty_seq", {**BURSTY, "non_bursty_type": "zipf"}, "did you mean 'zipfian'"),
        ("get_bursty_seq", {**BURSTY, "labeling_rare": "unfixed"}, "'unfixed' has no meaning"),
        ("get_random_seq", {"class_type": "rar", "seq_len": 9}, "did you mean 'rare'"),
        ("get_random_seq", {"class_type": "rare", "seq_len": 0}, ">= 1"),
        (
            "get_no_support_seq",
            {"class_type": "holdout", "seq_len": 9},
            "8 holdout classes for a unique part of 9",
        ),
        (
            "get_no_support_seq",
            {
                "class_type": "rare",
                "seq_len": 9,
                "all_unique": False,
                "labeling": "ordered0_polysemy2",
            },
            "polysemy is not defined",
        ),
    ],
)
def test_bad_calls_are_refused(method, args, message):
    with pytest.raises(ValueError, match=message):
        make_plan(PARTITION, method, args)


def test_branches_follow_the_two_draws():
    args = {**BURSTY, "p_bursty_zipfian": 0.3, "p_bursty_common": 0.3, "labeling_rare": "ordered"}
    plan = make_plan(PARTITION, "get_bursty_seq", args)

    def chosen(*uniforms):
        stream = iter(uniforms)
        kind = plan.branches.index(plan.choose(lambda: next(stream)))
        return kind, len(list(stream))

    assert chosen(0.9, 0.1) == (0, 1)  # the second draw is not made
    assert [chosen(0.1, u)[0] for u in (0.29, 0.31, 0.59, 0.61)] == [1, 2, 2, 3]
    assert sum(branch.probability for branch in plan.branches) == pytest.approx(1)


def test_impossible_branches_need_not_make_sense():
    """Only what can be drawn is checked: p_bursty_zipfian 1 never labels rare ones 'unfixed'."""
    args = {**BURSTY, "seq_len": 7, "labeling_rare": "unfixed"}
    assert len(make_plan(PARTITION, "get_bursty_seq", args).possible) == 2


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_a_plan(mode):
    plan = mode_plan(mode, SeqConfig(), PARTITION)
    assert plan.length == 9
    assert plan == mode_plan(f"eval_{mode}", SeqConfig(), PARTITION)


def test_no_support_modes_use_the_common_labeling():
    config = SeqConfig(labeling_common="original", randomly_generate_rare=True, grouped=True)
    method, args = mode_call("no_support_rare", config)
    assert method == "get_no_support_seq"
    assert args["labeling"] == "original"
    assert args["all_unique"] is False
    assert mode_call("fewshot_rare", config)[1]["randomly_generate_rare"] is True
    assert mode_call("fewshot_common", config)[1]["randomly_generate_rare"] is False
    assert mode_call("fewshot_common", config)[1]["grouped"] is True


def test_unknown_mode_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'fewshot_holdout'"):
        mode_call("fewshot_holdot", SeqConfig())
