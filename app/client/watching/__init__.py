"""``python -m app.client watch``: scores each image of a folder once it is complete, records it, and archives it.

The journal is the truth. An image is scored, then its line is written, then it is moved. A crash before the line leaves
the image to be scored; a crash after it leaves the move to be made. So no image is lost, and none has two lines.
"""
