"""An RTSP server that shows an image file, by GStreamer: run by the system's Python, which has its bindings.

Arguments: the port, the image file, its width and height, and optionally user and password. Prints a line when it
listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  after the versions

PIPELINE = (
    "( filesrc location={file} ! pngdec ! imagefreeze is-live=true ! videoconvert "
    "! video/x-raw,format=I420,width={width},height={height},framerate=20/1 ! jpegenc ! rtpjpegpay name=pay0 )"
)


def main(port: str, file: str, width: str, height: str, user: str = "", password: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port)
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    factory.set_launch(PIPELINE.format(file=file, width=width, height=height))
    if user:
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
    server.get_mount_points().add_factory("/line", factory)
    server.attach(None)
    print("listens", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
