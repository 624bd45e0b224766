import re
import struct
from contextlib import closing
from fractions import Fraction

import av
import h5py
import numpy as np
import pytest
from PIL import Image
from tiny_run import write_data
from videos import damage_frame, write_video

from hgtrain.data.media.frame_source import Place
from hgtrain.errors import DatasetError
from hgtrain.predict.inputs import batches, open_frames


def write_images(folder, names, size=(20, 10), mode="L"):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        colour = 10 * i if mode == "L" else (10 * i, 0, 0)
        Image.new(mode, size, colour).save(folder / name)
    return folder


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_gives_its_frames_in_order(tmp_path, suffix):
    frames = open_frames(str(write_video(tmp_path / f"film{suffix}", 10)), 1)
    brightness = [int(image.mean()) for image in frames]
    np.testing.assert_allclose(brightness, np.arange(10) * 20, atol=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_video_frames_have_the_channels_asked_for(tmp_path, channels):
    frames = open_frames(str(write_video(tmp_path / "film.mp4", 2)), channels)
    assert [image.shape for image in frames] == [(32, 48, channels)] * 2


def test_a_video_knows_its_length_and_rate_before_it_is_read(tmp_path):
    frames = open_frames(str(write_video(tmp_path / "film.mp4", 7, rate=30)), 1)
    assert (frames.kind, frames.count, frames.rate) == ("video", 7, 30.0)
    assert frames.place(3) == Place(str(tmp_path / "film.mp4"), 3)


def test_a_video_that_is_cut_off_says_after_which_frame(tmp_path):
    whole = write_video(tmp_path / "film.mp4", 40).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    read = []
    with pytest.raises(DatasetError, match=r"cut\.mp4: (ends|breaks) after .*"):
        read.extend(int(image.mean()) for image in open_frames(str(cut), 1))
    assert 0 < len(read) < 40


def test_text_named_as_a_video_is_refused(tmp_path):
    file = tmp_path / "notes.mp4"
    file.write_text("no video\n" * 50)
    with pytest.raises(
        DatasetError, match=r"notes\.mp4: is no video that can be read .* expected a video"
    ):
        open_frames(str(file), 1)


def test_a_sound_file_has_no_video_stream(tmp_path):
    file = tmp_path / "sound.wav"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DatasetError, match=r"sound\.wav: has no video stream"):
        open_frames(str(file), 1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing\.mp4: cannot be read: No such file"):
        open_frames(str(tmp_path / "nothing.mp4"), 1)


def test_images_of_a_folder_come_by_their_numbers(tmp_path):
    frames = open_frames(
        str(write_images(tmp_path / "a", ["img10.png", "img9.png", "img100.jpg", "note.txt.png"])),
        1,
    )
    assert [file.rsplit("/")[-1] for file in frames.files] == [
        "img9.png",
        "img10.png",
        "img100.jpg",
        "note.txt.png",
    ]
    assert frames.place(1) == Place(str(tmp_path / "a" / "img10.png"), 0)


def test_other_files_of_a_folder_are_not_read(tmp_path):
    folder = write_images(tmp_path / "a", ["one.png"])
    (folder / "labels.csv").write_text("x")
    assert open_frames(str(folder), 1).count == 1


def test_images_are_converted_to_the_channels_asked_for(tmp_path):
    folder = write_images(tmp_path / "a", ["one.png"], mode="RGB")
    assert next(iter(open_frames(str(folder), 1))).shape == (10, 20, 1)
    assert next(iter(open_frames(str(folder), 3))).shape == (10, 20, 3)


@pytest.mark.parametrize("name", ["one.png", "one.tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_8_are_taken(tmp_path, name, channels):
    grey = np.arange(200, dtype=np.uint16).reshape(10, 20)
    Image.fromarray(grey * 256 + 99).save(tmp_path / name)
    (image,) = open_frames(str(tmp_path / name), channels)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], channels, axis=-1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_images_of_fewer_bits_are_scaled_by_the_depth_of_their_folder(
    tmp_path, capsys, bits, suffix
):
    most = 2**bits - 1
    folder = tmp_path / "a"
    folder.mkdir()
    # The dark one comes first, and must stay dark.
    for i, value in enumerate((most // 16, most, most // 2)):
        Image.fromarray(np.full((10, 20), value, np.uint16)).save(folder / f"{i}.{suffix}")
    Image.new("L", (20, 10), 77).save(folder / "3.png")
    images = list(open_frames(str(folder), 1))
    assert [int(image[0, 0, 0]) for image in images] == [15, 255, 127, 77]
    line = f"{folder}: its 16-bit images use {bits} bits (the largest value is {most}): all are"
    assert (line in capsys.readouterr().err) == (bits < 16)


def write_16_bit_colours(path, colours, layout):
    """Write `(H, W, 3)` uint16 as FFmpeg does, for Pillow cannot."""
    codec = av.CodecContext.create("tiff" if path.suffix == ".tif" else "png", "w")
    codec.height, codec.width = colours.shape[:2]
    codec.pix_fmt, codec.time_base = layout, Fraction(1, 10)
    frame = av.VideoFrame.from_ndarray(colours, format="rgb48le").reformat(format=layout)
    path.write_bytes(b"".join(map(bytes, codec.encode(frame) + codec.encode())))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("one.png", "rgb48be"),
        ("one.png", "rgba64be"),
        ("one.tif", "rgb48le"),
        ("one.tif", "rgba64le"),
    ],
)
def test_colours_of_12_bits_are_scaled_too(tmp_path, name, layout):
    colours = (np.arange(3 * 200, dtype=np.uint16) * 7 % 4096).reshape(10, 20, 3)
    write_16_bit_colours(tmp_path / name, colours, layout)
    (image,) = open_frames(str(tmp_path / name), 3)
    np.testing.assert_array_equal(image, colours // 16)


def test_grey_of_12_bits_with_transparency_is_scaled_too(tmp_path):
    grey = np.full((10, 20, 3), 4095, np.uint16)
    grey[:, 10:] = 2048
    write_16_bit_colours(tmp_path / "one.png", grey, "ya16be")
    with Image.open(tmp_path / "one.png") as stored:
        assert stored.tile[0][3] == "LA;16B"
    (image,) = open_frames(str(tmp_path / "one.png"), 1)
    # FFmpeg's grey of a colour is a step higher at times.
    np.testing.assert_allclose(image[0, [0, 19], 0], (64, 32), atol=1)


def write_grey_film(path, values, layout):
    """Write a lossless film whose frames are of these values, as stored."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 20, 10, layout
        for value in values:
            frame = av.VideoFrame(20, 10, layout)
            plane = np.full((10, frame.planes[0].line_size // 2), value, np.uint16)
            frame.planes[0].update(plane.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("layout", "most", "says"),
    [
        ("gray16le", 4095, True),
        ("gray16le", 1023, True),
        ("gray16le", 65535, False),
        ("gray12le", 4095, False),
        ("gray10le", 1023, False),
    ],
)
def test_a_film_of_fewer_bits_is_scaled_by_its_depth(
    tmp_path, capsys, layout, most, says, channels
):
    film = write_grey_film(tmp_path / "a.mkv", (most // 16, most // 2, most), layout)
    images = list(open_frames(str(film), channels))
    assert [image.shape for image in images] == [(10, 20, channels)] * 3
    np.testing.assert_allclose([image.mean() for image in images], (15.5, 127.5, 255), atol=0.6)
    assert ("a.mkv: its 16-bit images use" in capsys.readouterr().err) == says


def test_pixels_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "one.tif")
    (error,) = open_frames(str(tmp_path / "one.tif"), 1)
    assert re.search(r"one\.tif: has pixels of 32 bits, expected 8 or 16", str(error))


def test_all_pages_of_a_tiff_file_are_read(tmp_path):
    pages = [Image.new("L", (20, 10), 10 * i) for i in range(5)]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    Image.new("L", (20, 10), 77).save(tmp_path / "a.tif")
    frames = open_frames(str(tmp_path), 1)
    assert [int(image.mean()) for image in frames] == [77, 0, 10, 20, 30, 40]
    assert frames.count == len(frames.files) == 6
    assert frames.place(3) == Place(str(tmp_path / "b.tif"), 2)


def test_a_damaged_page_is_named_and_the_others_are_read(tmp_path):
    pages = [Image.new("L", (20, 10), 10 * i) for i in range(3)]
    options = {"save_all": True, "append_images": pages[1:], "compression": "tiff_adobe_deflate"}
    pages[0].save(tmp_path / "b.tif", **options)
    with Image.open(tmp_path / "b.tif") as stored:
        stored.seek(1)
        (start,), (size,) = stored.tag_v2[273], stored.tag_v2[279]
    data = bytearray((tmp_path / "b.tif").read_bytes())
    data[start : start + size] = b"\xff" * size
    (tmp_path / "b.tif").write_bytes(data)
    first, damaged, last = open_frames(str(tmp_path / "b.tif"), 1)
    assert str(damaged).startswith(f"{tmp_path}/b.tif: page 1: cannot be read as an image: ")
    assert (first.max(), last.max()) == (0, 20)


@pytest.mark.parametrize("name", ["film.gif", "film.data"])
def test_all_frames_of_a_gif_without_delays_are_read(tmp_path, name):
    path = tmp_path / name
    images = [Image.new("L", (20, 10), 30 * i) for i in range(5)]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=40)
    assert open_frames(str(path), 1).kind == "video"
    # Delays are in the graphic control extensions, which an older GIF has not.
    path.write_bytes(re.sub(rb"\x21\xf9\x04.{4}\x00", b"", path.read_bytes(), flags=re.DOTALL))
    with closing(open_frames(str(path), 1)) as frames:
        assert (frames.count, frames.shape, frames.place(3)) == (
            5,
            (5, 10, 20, 1),
            Place(str(path), 3),
        )
        assert [int(image.mean()) for image in frames] == [0, 30, 60, 90, 120]


def test_a_dataset_behind_a_user_block_is_one(tmp_path):
    write_data(tmp_path)
    with (
        h5py.File(tmp_path / "flies.h5") as old,
        h5py.File(tmp_path / "new.h5", "w", userblock_size=1024) as new,
    ):
        new.attrs.update(old.attrs)
        for name in old:
            old.copy(name, new)
    with closing(open_frames(str(tmp_path / "new.h5"), 1)) as frames:
        assert (frames.kind, frames.count) == ("dataset", 12)


def test_a_damaged_dataset_is_no_video(tmp_path):
    write_data(tmp_path)
    cut = tmp_path / "cut.h5"
    cut.write_bytes((tmp_path / "flies.h5").read_bytes()[:600])
    with pytest.raises(DatasetError, match=r"cut\.h5 is truncated"):
        open_frames(str(cut), 1)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DatasetError, match=r"a: has no image files, expected \.png"):
        open_frames(str(tmp_path / "a"), 1)


def test_an_empty_image_file_is_named_in_its_place(tmp_path):
    folder = write_images(tmp_path / "a", ["img1.png", "img2.png", "img3.png"])
    (folder / "img2.png").write_bytes(b"")
    first, broken, last = open_frames(str(folder), 1)
    assert isinstance(broken, DatasetError)
    assert str(broken) == f"{folder}/img2.png: is no image that can be read (0 bytes)"
    assert (first.max(), last.max()) == (0, 20)


def test_a_truncated_image_is_named(tmp_path):
    folder = write_images(tmp_path / "a", ["one.png"], size=(200, 200), mode="RGB")
    data = (folder / "one.png").read_bytes()
    (folder / "one.png").write_bytes(data[: len(data) // 2])
    (error,) = open_frames(str(folder), 1)
    assert re.search(r"one\.png: cannot be read as an image", str(error))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("film.avi", "mjpeg", {}),
        ("film.avi", "png", {}),
        ("film.mkv", "libx264", {"g": "5", "bf": "2"}),
        ("film.mp4", "libx264", {"g": "5", "bf": "2"}),
        ("film.avi", "mpeg4", {"g": "5"}),
    ],
)
def test_damaged_frames_of_a_film_are_named_and_the_others_keep_their_numbers(
    tmp_path, name, codec, options
):
    film = tmp_path / name
    with av.open(str(film), "w") as container:
        stream = container.add_stream(codec, rate=20, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        for i in range(30):
            image = np.random.default_rng(i).integers(6 * i, 6 * i + 9, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    whole = [float(image.mean()) for image in open_frames(str(film), 1)]
    images = list(open_frames(str(damage_frame(film, 7, 17)), 1))
    assert len(images) == 30
    damaged = [i for i, image in enumerate(images) if isinstance(image, DatasetError)]
    assert 2 <= len(damaged) <= 4
    for i in damaged:
        assert re.search(rf"{name}: frame {i} cannot be decoded: Invalid data", str(images[i]))
    read = [i for i in range(30) if i not in damaged]
    # What was coded by what was lost is a little off; a shift by a frame would be 6.
    np.testing.assert_allclose([images[i].mean() for i in read], [whole[i] for i in read], atol=2.5)


def test_a_damaged_frame_of_a_dataset_is_named_and_the_others_are_read(tmp_path):
    write_data(tmp_path)
    with h5py.File(tmp_path / "flies.h5") as file:
        chunk, whole = file["images"].id.get_chunk_info(5), file["images"][:]
    with (tmp_path / "flies.h5").open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    with closing(open_frames(str(tmp_path / "flies.h5"), 1)) as frames:
        images = list(frames)
    assert isinstance(images.pop(5), DatasetError)
    np.testing.assert_array_equal(images, np.delete(whole, 5, axis=0))


def test_a_dataset_gives_its_images(tmp_path):
    write_data(tmp_path)
    frames = open_frames(str(tmp_path / "flies.h5"), 3)
    images = list(frames)
    frames.close()
    assert (frames.kind, frames.count, frames.channels) == ("dataset", 12, 1)
    assert [image.shape for image in images] == [(32, 32, 1)] * 12


def test_a_batch_ends_where_the_shape_changes():
    images = [np.zeros(shape, np.uint8) for shape in [(4, 4, 1)] * 3 + [(5, 4, 1)] * 2]
    assert [batch.images.shape for batch in batches(images, 2)] == [
        (2, 4, 4, 1),
        (1, 4, 4, 1),
        (2, 5, 4, 1),
    ]


def test_what_was_read_before_an_error_is_given_first():
    def breaking():
        yield np.zeros((2, 2, 1), np.uint8)
        raise DatasetError("broken")

    given = []
    with pytest.raises(DatasetError, match="broken"):
        given.extend(batches(breaking(), 4))
    assert [batch.images.shape for batch in given] == [(1, 2, 2, 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_damaged_frames_keep_their_places_in_batches(size):
    errors = {i: DatasetError(str(i)) for i in (0, 1, 4, 5, 6, 9)}
    shapes = [(2, 3, 1)] * 5 + [(4, 3, 1)] * 5
    given = list(batches((errors.get(i, np.full(shapes[i], 9, np.uint8)) for i in range(10)), size))
    assert all(len(batch.images) <= size for batch in given)
    flat = [image for batch in given for image in batch.images]
    assert [int(image.max()) for image in flat] == [0 if i in errors else 9 for i in range(10)]
    starts = np.cumsum([0, *(len(batch.images) for batch in given)])
    places = {
        start + i: error
        for start, batch in zip(starts, given, strict=False)
        for i, error in batch.damaged.items()
    }
    assert places == errors


def test_where_no_frame_can_be_read_the_first_reason_is_raised():
    with pytest.raises(DatasetError, match=r"^none of 3 frames can be read, the first: 0$"):
        list(batches([DatasetError(str(i)) for i in range(3)], 2))
    with pytest.raises(DatasetError, match=r"^0$"):
        list(batches([DatasetError("0")], 2))


PICTURE = np.full((60, 40), 60, np.uint8)
"""A tall picture, bright at the top right and dim at the bottom left, as a viewer is to see it."""
PICTURE[8:20, 24:36] = 240
PICTURE[40:52, 8:20] = 150

STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.T,
    6: lambda up: np.rot90(up, 1),
    7: lambda up: up[::-1, ::-1].T,
    8: lambda up: np.rot90(up, -1),
}
"""How a camera stores the picture of each EXIF orientation (EXIF 2.3, 4.6.4).

6 is shown turned clockwise.
"""


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_read_as_viewers_show_it(tmp_path, orientation, suffix, channels):
    stored, exif = Image.fromarray(np.ascontiguousarray(STORED[orientation](PICTURE))), Image.Exif()
    exif[0x0112] = orientation
    stored.save(
        tmp_path / f"photo{suffix}", exif=exif, **({"quality": 95} if suffix == ".jpg" else {})
    )
    frames = open_frames(str(tmp_path), channels)
    (image,) = frames
    assert frames.shape == (1, 60, 40, channels)
    np.testing.assert_allclose(image, np.repeat(PICTURE[..., None], channels, -1), atol=12)


def write_turned(path, stored, matrix):
    """Write a film of one picture whose header has the first two rows of this display matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *stored.shape, "yuv420p"
        stream.options = {"qscale": "2"}
        grey = np.ascontiguousarray(np.repeat(stored[..., None], 3, -1))
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    unity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    track = data.index(b"tkhd")
    at = data.index(unity, track)
    (a, b), (c, d) = matrix
    turned = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + turned + data[at + len(unity) :])
    return path


@pytest.mark.parametrize(
    ("matrix", "store"),
    [
        (((1, 0), (0, 1)), STORED[1]),
        (((-1, 0), (0, 1)), STORED[2]),
        (((-1, 0), (0, -1)), STORED[3]),
        (((1, 0), (0, -1)), STORED[4]),
        (((0, 1), (1, 0)), STORED[5]),
        (((0, 1), (-1, 0)), STORED[6]),
        (((0, -1), (-1, 0)), STORED[7]),
        (((0, -1), (1, 0)), STORED[8]),
    ],
)
def test_a_film_is_read_as_players_show_it(tmp_path, matrix, store):
    frames = open_frames(str(write_turned(tmp_path / "phone.mp4", store(PICTURE), matrix)), 1)
    images = list(frames)
    assert frames.shape == (3, 60, 40, 1)
    # Within the squares, for the codec blurs their edges.
    assert [(int(image[14, 30, 0]), int(image[46, 14, 0])) for image in images] == [
        (pytest.approx(240, abs=12), pytest.approx(150, abs=12))
    ] * 3


def write_film(path, shown=range(60), codec="mjpeg"):
    """Write a film of 20 frames a second of noise, whose frames are those of these numbers."""
    random = np.random.default_rng(0)
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mov" else {}
    ) as container:
        stream = container.add_stream(codec, rate=20)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in shown:
            frame = av.VideoFrame.from_ndarray(
                random.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


CONTAINERS = [
    ("film.mkv", "mjpeg"),
    ("film.avi", "mjpeg"),
    ("film.mov", "mjpeg"),
    ("film.flv", "flv"),
]


@pytest.mark.parametrize(("name", "codec"), [*CONTAINERS, ("film.ts", "mpeg2video")])
def test_a_whole_film_is_whole_in_every_container(tmp_path, name, codec):
    assert len(list(open_frames(str(write_film(tmp_path / name, codec=codec)), 1))) == 60


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_a_film_cut_at_60_percent_is_known_in_every_container(tmp_path, name, codec):
    film = write_film(tmp_path / name, codec=codec)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])
    read = []
    with pytest.raises(
        DatasetError,
        match=r"film\.\w+: (ends after 3\d frames, its header promises 6\d|breaks after)",
    ):
        read.extend(open_frames(str(film), 1))
    assert 30 <= len(read) <= 40


@pytest.mark.parametrize("name", ["film.ts", "film.m2ts"])
def test_a_transport_stream_that_ends_within_a_packet_is_cut_off(tmp_path, name):
    film = write_film(tmp_path / name, codec="mpeg2video")
    whole = film.read_bytes()
    size = 192 if name == "film.m2ts" else 188
    assert len(whole) % size == 0
    film.write_bytes(whole[: len(whole) * 6 // 10 // size * size + 100])
    read = []
    with pytest.raises(
        DatasetError, match=r"ends after \d+ frames in the middle of a packet: .*cut"
    ):
        read.extend(open_frames(str(film), 1))
    assert 30 <= len(read) <= 40


@pytest.mark.parametrize("name", ["film.avi", "film.mkv", "film.mov"])
def test_a_film_with_dropped_frames_is_whole(tmp_path, name):
    kept = [number for number in range(60) if number % 7 not in (3, 4)]
    assert len(list(open_frames(str(write_film(tmp_path / name, kept)), 1))) == len(kept)


@pytest.mark.parametrize("delays", [None, 0, [50, 50, 3000]])
def test_a_gif_is_whole_whatever_its_delays(tmp_path, delays):
    pages = [Image.new("L", (20, 10), 60 * i) for i in range(3)]
    options = {} if delays is None else {"duration": delays}
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:], **options)
    assert len(list(open_frames(str(tmp_path / "film.gif"), 1))) == 3


def test_a_film_without_a_frame_is_refused(tmp_path):
    film = write_film(tmp_path / "film.mkv")
    cluster = film.read_bytes().index(b"\x1f\x43\xb6\x75")
    film.write_bytes(film.read_bytes()[: cluster + 12])
    with pytest.raises(
        DatasetError, match=r"film\.mkv: ends after 0 frames, its header promises 60"
    ):
        list(open_frames(str(film), 1))


def test_files_that_macos_puts_beside_images_are_left_out(tmp_path):
    folder = write_images(tmp_path / "a", ["img1.png", "img2.png"])
    for name in ("._img1.png", "._img2.png"):
        (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200))
    assert [int(image.mean()) for image in open_frames(str(folder), 1)] == [0, 10]
