// Frames on file descriptors 0 and 1, as in frames.py: a 4-byte big-endian length and that many bytes.
// Reading and writing block, so that nothing else can happen in this process between two requests.

import fs from "node:fs";

function readExactly(size) {
  const data = Buffer.allocUnsafe(size);
  for (let at = 0; at < size; ) {
    const count = fs.readSync(0, data, at, size - at, null);
    if (count === 0) return null;
    at += count;
  }
  return data;
}

/** The next frame as text, or null at the end of the connection. */
export function readFrame() {
  const header = readExactly(4);
  return header && (readExactly(header.readUInt32BE(0))?.toString("utf8") ?? null);
}

/** Sends text or bytes as one frame. */
export function writeFrame(payload) {
  const body = Buffer.from(payload);
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  for (let at = 0; at < frame.length; ) at += fs.writeSync(1, frame, at, frame.length - at);
}
