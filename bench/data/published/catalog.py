"""The catalog of published data sets: mirrors, sizes, checksums, terms and layouts.

Every checksum names the public source in which it was read. The numbers of images are those of the
data sets' own pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.errors import unknown

OXFORD = (
    "https://thor.robots.ox.ac.uk/pascal/VOC",
    "http://host.robots.ox.ac.uk/pascal/VOC",
)
REDMON = "https://data.pjreddie.com/files"  # the mirror of pjreddie.com/projects
TFDS_VOC = (
    "https://github.com/tensorflow/datasets/blob/333639b/tensorflow_datasets/url_checksums/voc.txt"
)
FLICKR_TERMS = "images: the terms of Flickr, from where they are; see 'Database Rights'"
IMAGENET_TERMS = "images: from ImageNet, for non-commercial research and education only"


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack.

    Attributes:
        name: of the file, below the folder `archives` of the data root.
        urls: mirrors, in the order in which they are tried; none for what cannot be downloaded.
        size: bytes.
        checksum: ALGORITHM:HEX; empty where no public source states one.
        source: where the checksum was read.
        members: (regular expression, replacement) that give a member its path below the data root;
            the first one that matches; other members are left out.
        unpacked: bytes that these members and what is converted from them may have.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    checksum: str
    source: str
    members: tuple[tuple[str, str], ...] = ()
    unpacked: int = 0


@dataclass(frozen=True)
class Split:
    """The images that a split has.

    Attributes:
        name: of the split.
        path: the folder or the file that lists them, below the data set's folder.
        images: how many there are.
        per_class: how many each class has; 0 if they differ, or without classes.
        optional: whether the data set is whole without its folder.
    """

    name: str
    path: str
    images: int
    per_class: int = 0
    optional: bool = False


@dataclass(frozen=True)
class PublishedDataset:
    """One data set as its publishers give it.

    Attributes:
        name: on the command line.
        title: in full.
        kind: `voc`, `masks` (of a VOCdevkit) or `image_folder`.
        folder: below the data root, where the shipped suites look for it.
        terms: of use.
        page: that states them.
        splits: and their images.
        archives: to download.
        layout: the files to put in place by hand, one line each, below the data root.
        conversion: of the unpacked files, a name in `convert`; empty if there is none.
        needs: the data set that must be there before.
        notes: what to do where nothing can be downloaded.
    """

    name: str
    title: str
    kind: Literal["voc", "masks", "image_folder"]
    folder: str
    terms: str
    page: str
    splits: tuple[Split, ...]
    archives: tuple[Archive, ...]
    layout: tuple[str, ...]
    conversion: str = ""
    needs: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_downloadable(self) -> bool:
        """Whether every archive has a mirror."""
        return all(archive.urls for archive in self.archives)


def _voc_archive(year: str, name: str, size: int, sha256: str) -> Archive:
    """An archive of the VOC challenges; all of it is unpacked."""
    return Archive(
        name=name,
        urls=(*(f"{mirror}/voc{year}/{name}" for mirror in OXFORD), f"{REDMON}/{name}"),
        size=size,
        checksum=f"sha256:{sha256}",
        source=TFDS_VOC,
        members=((rf"VOCdevkit/VOC{year}/.+", r"\g<0>"),),
        unpacked=size,
    )


VOC2007 = PublishedDataset(
    name="voc2007",
    title="PASCAL VOC 2007",
    kind="voc",
    folder="VOCdevkit/VOC2007",
    terms=FLICKR_TERMS,
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/index.html",
    splits=(
        Split("trainval", "ImageSets/Main/trainval.txt", 5011),
        Split("test", "ImageSets/Main/test.txt", 4952),
        Split("segmentation trainval", "ImageSets/Segmentation/trainval.txt", 422),
        Split("segmentation test", "ImageSets/Segmentation/test.txt", 210),
    ),
    archives=(
        _voc_archive(
            "2007",
            "VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        _voc_archive(
            "2007",
            "VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
    ),
    layout=(
        "VOCdevkit/VOC2007/JPEGImages/ID.jpg",
        "VOCdevkit/VOC2007/Annotations/ID.xml",
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt, test.txt, CLASS_trainval.txt, ...",
        "VOCdevkit/VOC2007/ImageSets/Segmentation/trainval.txt, test.txt",
        "VOCdevkit/VOC2007/SegmentationClass/ID.png",
    ),
)

VOC2012 = PublishedDataset(
    name="voc2012",
    title="PASCAL VOC 2012, training and validation",
    kind="voc",
    folder="VOCdevkit/VOC2012",
    terms=FLICKR_TERMS,
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/index.html",
    splits=(
        Split("train", "ImageSets/Main/train.txt", 5717),
        Split("val", "ImageSets/Main/val.txt", 5823),
        Split("trainval", "ImageSets/Main/trainval.txt", 11540),
        Split("segmentation train", "ImageSets/Segmentation/train.txt", 1464),
        Split("segmentation val", "ImageSets/Segmentation/val.txt", 1449),
    ),
    archives=(
        _voc_archive(
            "2012",
            "VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    ),
    layout=(
        "VOCdevkit/VOC2012/JPEGImages/ID.jpg",
        "VOCdevkit/VOC2012/Annotations/ID.xml",
        "VOCdevkit/VOC2012/ImageSets/Main/train.txt, val.txt, trainval.txt, CLASS_train.txt, ...",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt, val.txt",
        "VOCdevkit/VOC2012/SegmentationClass/ID.png",
    ),
)

SBD = PublishedDataset(
    name="sbd",
    title="masks of the Semantic Boundaries Dataset for VOC 2012, and its split train_aug",
    kind="masks",
    folder="VOCdevkit/VOC2012",
    terms="no license stated; the images are those of VOC 2012",
    page="http://home.bharathh.info/pubs/codes/SBD/download.html",
    # tools/dataset_converters/voc_aug.py of open-mmlab/mmsegmentation counts as many.
    splits=(Split("train_aug", "ImageSets/Segmentation/train_aug.txt", 10_582),),
    archives=(
        Archive(
            name="benchmark.tgz",
            urls=(
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours/benchmark.tgz",
            ),
            size=1_419_539_633,
            checksum="sha256:6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
            source="https://github.com/pytorch/vision/blob/0ceda79/"
            "torchvision/prototype/datasets/_builtin/sbd.py",
            members=(
                (r"benchmark_RELEASE/dataset/(train|val)\.txt", r"sbd/\1.txt"),
                (r"benchmark_RELEASE/dataset/cls/([^/]+\.mat)", r"sbd/cls/\1"),
            ),
            unpacked=4_000_000_000,
        ),
    ),
    layout=(
        "VOCdevkit/VOC2012/SegmentationClassAug/ID.png (class indices of the SBD; where there is",
        "  none, SegmentationClass/ID.png counts)",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt (10,582 lines: those of the SBD's",
        "  train.txt and val.txt and of VOC's train.txt, without those of VOC's val.txt)",
    ),
    conversion="sbd_masks",
    needs="voc2012",
)

TINY_IMAGENET = PublishedDataset(
    name="tiny-imagenet",
    title="Tiny-ImageNet-200",
    kind="image_folder",
    folder="tiny-imagenet",
    terms=IMAGENET_TERMS,
    page="https://www.image-net.org/download.php",
    splits=(
        Split("train", "train", 100_000, per_class=500),
        Split("val", "val", 10_000, per_class=50),
    ),
    archives=(
        Archive(
            name="tiny-imagenet-200.zip",
            urls=(
                "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            ),
            size=248_100_043,
            checksum="md5:90528d7ca1a48142e341f4ef8d21d0de",
            source="https://github.com/ContinualAI/avalanche/blob/0a08720/"
            "avalanche/benchmarks/datasets/tiny_imagenet/tiny_imagenet.py",
            members=(
                (
                    r"tiny-imagenet-200/train/(n\d{8})/images/([^/]+\.JPEG)",
                    r"tiny-imagenet/train/\1/\2",
                ),
                (
                    r"tiny-imagenet-200/val/(images/[^/]+\.JPEG|val_annotations\.txt)",
                    r"tiny-imagenet/val/\1",
                ),
            ),
            unpacked=600_000_000,
        ),
    ),
    layout=(
        "tiny-imagenet/train/WNID/*.JPEG (or WNID/images/*.JPEG, as in the archive)",
        "tiny-imagenet/val/WNID/*.JPEG (val_annotations.txt of the archive names the WNID)",
    ),
    conversion="tiny_imagenet",
)

STL10 = PublishedDataset(
    name="stl-10",
    title="STL-10, as PNG",
    kind="image_folder",
    folder="stl-10",
    terms=IMAGENET_TERMS,
    page="https://cs.stanford.edu/~acoates/stl10/",
    splits=(
        Split("train", "train", 5000, per_class=500),
        Split("test", "test", 8000, per_class=800),
        Split("unlabeled", "unlabeled", 100_000),
    ),
    archives=(
        Archive(
            name="stl10_binary.tar.gz",
            urls=(
                "https://cs.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            ),
            size=2_640_397_119,
            checksum="sha256:f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
            source="https://github.com/tensorflow/datasets/blob/333639b/"
            "tensorflow_datasets/url_checksums/stl10.txt",
            members=((r"stl10_binary/([^/]+\.(bin|txt))", r"stl-10/\1"),),
            unpacked=6_400_000_000,
        ),
    ),
    layout=(
        "stl-10/train/CLASS/*.png, stl-10/test/CLASS/*.png",
        "stl-10/unlabeled/*.png",
    ),
    conversion="stl10",
)

IMAGENETTE = PublishedDataset(
    name="imagenette",
    title="Imagenette (version 2, short side 320 px)",
    kind="image_folder",
    folder="imagenette",
    terms=f"{IMAGENET_TERMS}; the selection: Apache-2.0",
    page="https://github.com/fastai/imagenette",
    splits=(Split("train", "train", 9469), Split("val", "val", 3925)),
    archives=(
        Archive(
            name="imagenette2-320.tgz",
            urls=("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",),
            size=341_663_724,
            checksum="sha256:569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c",
            source="https://huggingface.co/datasets/frgfm/imagenette/blob/"
            "45a8c056a64e9d57dde8a86dde42f1505a50f66e/dataset_infos.json",
            members=((r"imagenette2-320/((?:train|val)/n\d{8}/[^/]+\.JPEG)", r"imagenette/\1"),),
            unpacked=500_000_000,
        ),
    ),
    layout=("imagenette/train/WNID/*.JPEG", "imagenette/val/WNID/*.JPEG"),
)

IMAGENET = PublishedDataset(
    name="imagenet",
    title="ImageNet-1k (ILSVRC 2012)",
    kind="image_folder",
    folder="imagenet",
    terms="non-commercial research and education only, after registration",
    page="https://www.image-net.org/download.php",
    splits=(
        Split("train", "train", 1_281_167),
        Split("val", "val", 50_000, per_class=50, optional=True),
    ),
    archives=(
        Archive(
            name="ILSVRC2012_img_train.tar",
            urls=(),
            size=147_897_477_120,
            checksum="sha256:b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb",
            source="https://github.com/pytorch/vision/blob/0aae427/"
            "torchvision/prototype/datasets/_builtin/imagenet.py",
        ),
        Archive(
            name="ILSVRC2012_img_val.tar",
            urls=(),
            size=6_744_924_160,
            checksum="sha256:c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
            source="https://github.com/pytorch/vision/blob/0aae427/"
            "torchvision/prototype/datasets/_builtin/imagenet.py",
        ),
    ),
    layout=(
        "imagenet/train/WNID/*.JPEG (1,000 folders)",
        "imagenet/val/WNID/*.JPEG (50 each), for imagenet_linear and knn",
    ),
    notes=(
        "Register at https://www.image-net.org/download.php, accept the terms, and download both",
        "files of ILSVRC 2012. Unpack the first one, then each of its 1,000 archives WNID.tar into",
        "a folder WNID. The second one has no folders: ILSVRC2012_validation_ground_truth.txt of",
        "the development kit has the class of each image.",
    ),
)

CATALOG = {
    dataset.name: dataset
    for dataset in (VOC2007, VOC2012, SBD, TINY_IMAGENET, STL10, IMAGENETTE, IMAGENET)
}


def lookup(name: str) -> PublishedDataset:
    """The data set of a name.

    Raises:
        UserError: there is none.
    """
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    return CATALOG[name]
