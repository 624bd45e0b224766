"""Small videos for tests."""

import av
import numpy as np


def write_video(path, frames=10, size=(48, 32), codec="mpeg4", rate=25):
    """Write a grey video of (width, height) whose frame i has brightness 20 * i, with the header at
    the front."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(frames):
            image = np.full((size[1], size[0], 3), 20 * i % 240, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def damage_frame(path, *numbers):
    """Overwrite the data of these packets of a film, whose frames are each one packet."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for number in numbers:
        at = data.index(packets[number])
        noise = np.random.default_rng(number).integers(0, 256, len(packets[number]), np.uint8)
        data = data[:at] + noise.tobytes() + data[at + len(noise) :]
    path.write_bytes(data)
    return path
