"""Reads a stream, and hands out its newest picture: a process of its own, which ends when the stream fails or hangs.

A process, because a library that waits for a driver or a name server cannot be interrupted otherwise, and because
damaged streams must not end the watcher. It reads from standard input one line with the settings, then one line with
the greatest age in seconds for each picture that is wanted. It writes lines of JSON to standard output: ``ready`` when
there are pictures; ``size`` and ``time_ns``, followed by a PNG of this size; ``error``, and ends.
"""

import json
import os
import sys
import threading
import time
from fractions import Fraction
from typing import Any, Final, NoReturn

import av
import av.error
import av.logging

_WAITED_S: Final = 0.0005  # a packet that was there at once was received earlier
_BEHIND_S: Final = 2.0  # of decoding without ever waiting: this machine is slower than the camera
_PROTOCOLS: Final = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto"  # no files
_OPTIONS: Final = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000"}


class Newest:
    """The newest picture of a stream. Each that comes replaces the one before, and each is taken once at most."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: av.VideoFrame | None = None
        self._received = 0.0
        self._time_ns = 0
        self._count = 0
        self._failure = ""

    def put(self, frame: av.VideoFrame) -> None:
        """A picture has come."""
        with self._changed:
            self._frame, self._received, self._time_ns = frame, time.monotonic(), time.time_ns()
            self._count += 1
            self._changed.notify_all()

    def fail(self, why: str) -> None:
        """No more will come."""
        with self._changed:
            self._failure = why
            self._changed.notify_all()

    def take(self, max_age_s: float) -> tuple[av.VideoFrame, int]:
        """Waits for a picture that is no older, and returns it with its time in nanoseconds since 1970."""
        not_before = time.monotonic() - max_age_s
        with self._changed:
            while self._frame is None or self._received < not_before:
                self._changed.wait()
            frame, self._frame = self._frame, None
            return frame, self._time_ns

    def wait(self, seconds: float) -> str:
        """Waits for the next picture; returns why there is none, or nothing."""
        with self._changed:
            before = self._count
            came = self._changed.wait_for(lambda: self._count != before or self._failure, seconds)
            return self._failure if came else f"no picture for {seconds:g} s"


def decode(url: str, newest: Newest) -> NoReturn:
    """Decodes a stream into its newest picture.

    Raises:
        FFmpegError: it cannot be opened or read.
        ValueError: it has no pictures.
        EOFError: it has ended.
    """
    device = url.startswith("/")
    options = _OPTIONS if device else {**_OPTIONS, "protocol_whitelist": _PROTOCOLS}
    if url.startswith("rtsp"):  # TCP: nothing is lost; a picture with holes would be an anomaly
        options = {**options, "rtsp_transport": "tcp", "allowed_media_types": "video"}
    with av.open(url, format="v4l2" if device else None, options=options) as container:
        if not container.streams.video:
            raise ValueError("the stream has no pictures")
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_type = "SLICE"  # threads that take whole frames would hold back as many
        before = waited = time.monotonic()
        for packet in container.demux(stream):
            now = time.monotonic()
            if now - before > _WAITED_S:
                waited = now
            if now - waited > _BEHIND_S:
                context.skip_frame = "NONKEY"  # what follows needs no other frame
            elif packet.is_keyframe:
                context.skip_frame = "DEFAULT"
            try:
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                        newest.put(frame)
            except av.error.InvalidDataError:
                pass  # others may be whole
            before = time.monotonic()
    raise EOFError


def png(frame: av.VideoFrame) -> bytes:
    """A frame as a PNG file: grey, or RGB with 8 bits."""
    name = "gray" if frame.format.name.startswith(("gray", "mono")) else "rgb24"
    pixels = frame.reformat(format=name)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = frame.width, frame.height, name, Fraction(1)
    return b"".join(map(bytes, [*encoder.encode(pixels), *encoder.encode(None)]))


def main() -> None:
    """Runs the reader until standard input ends or the stream fails."""
    av.logging.set_level(None)
    settings = json.loads(sys.stdin.buffer.readline())
    newest, writing = Newest(), threading.Lock()

    def write(message: dict[str, Any], content: bytes = b"") -> None:
        with writing:
            sys.stdout.buffer.write(json.dumps(message).encode() + b"\n" + content)
            sys.stdout.buffer.flush()

    def guard() -> None:
        failure = newest.wait(settings["timeout_s"])
        if not failure:
            write({"ready": True})
        while not failure:
            failure = newest.wait(settings["timeout_s"])
        write({"error": failure})
        os._exit(1)  # whatever the other threads wait for

    def run() -> None:
        try:
            decode(settings["url"], newest)
        except (av.error.FFmpegError, OSError) as error:  # str(error) has the address
            newest.fail(error.strerror or type(error).__name__)
        except ValueError as error:
            newest.fail(str(error))
        except EOFError:
            newest.fail("the stream has ended")

    threading.Thread(target=guard, daemon=True).start()
    threading.Thread(target=run, daemon=True).start()
    for line in sys.stdin.buffer:
        frame, time_ns = newest.take(float(line))
        content = png(frame)
        write({"size": len(content), "time_ns": time_ns}, content)
    os._exit(0)


if __name__ == "__main__":
    main()
