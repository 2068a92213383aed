// The program in Node.js behind the `pyodide` backend: one Python session at a time, in WebAssembly.
//
// Requests and replies are frames of JSON. The first request holds the settings of `startMachine` and those below;
// its reply is {ready: true}, or, without a heap to start from, the heap itself, and then the program ends.
// The others:
//   {start}           a fresh session with these settings       -> {}
//   {reseed}          seed the random generators                -> {}
//   {run, wall, cpu}  run code, for so many seconds at most     -> [[text, kind]]
//                     or stopped, with whether what was before is back -> {over: "wall" | "cpu", intact}
//   {save}            keep a copy under this number             -> {bytes} or {unfit: why}
//   {load}            go back to that copy                      -> {found}
// `forget` may come with any of them and lists copies that are not needed any more.

import { Copies } from "./copies.mjs";
import { readFrame, writeFrame } from "./frames.mjs";
import { SEALED, startMachine, Watch } from "./machine.mjs";

/** A session in the machine: what it was copied as last, and what it was asked since. */
class Session {
  #ask;
  #watch;
  #copies;
  #fresh; // the machine without a session
  #point; // a copy from which `#since` leads to the present
  #since = []; // pairs of a request and the reply to it
  #seconds = 0; // that those took
  #copySeconds = 0; // that the last copy took

  constructor(ask, watch, copies) {
    this.#ask = ask;
    this.#watch = watch;
    this.#copies = copies;
    this.#fresh = this.#point = copies.take();
  }

  start(settings) {
    this.#goTo(this.#fresh);
    this.perform(JSON.stringify({ start: settings }), Infinity, Infinity);
  }

  /** Asks Python; over a limit, the session is brought back to where it was. */
  perform(request, wall, cpu) {
    // From one copy the same requests lead to the same memory, bit for bit, unless they asked for the time or for
    // randomness. So there is no need for a copy before each, only where repeating would be inexact or slow.
    if (this.#since.length && (this.#watch.impure || this.#seconds > this.#copySeconds)) this.copy();
    this.#watch.start(wall, cpu);
    let reply;
    try {
      reply = this.#ask(request);
    } catch (error) {
      // It may strike after the code, where nothing in Python catches it. All else is the end of this machine.
      if (error?.type !== "KeyboardInterrupt") throw error;
    }
    const { seconds, over } = this.#watch.stop();
    if (over) return { over, intact: this.#goBack() };
    this.#since.push([request, reply]);
    this.#seconds += seconds;
    return [JSON.parse(reply)];
  }

  /** A copy of the session as it is, or null where none would be exact. */
  copy() {
    if (!this.#since.length) return this.#point;
    if (this.#copies.unfit()) return null;
    const begun = process.hrtime.bigint();
    this.#goOnFrom(this.#copies.take());
    this.#copySeconds = Number(process.hrtime.bigint() - begun) / 1e9;
    return this.#point;
  }

  unfit() {
    return this.#copies.unfit();
  }

  load(copy) {
    this.#goTo(copy);
  }

  #goTo(copy) {
    this.#copies.restore(copy);
    this.#goOnFrom(copy);
  }

  #goOnFrom(copy) {
    this.#point = copy;
    this.#since = [];
    this.#seconds = 0;
    this.#watch.impure = false;
  }

  #goBack() {
    this.#copies.restore(this.#point);
    return this.#since.every(([request, reply]) => this.#ask(request) === reply);
  }
}

/** Copies under the numbers that the host gave them, those used longest ago first. */
class Shelf {
  #copies = new Map();
  #room;

  constructor(room) {
    this.#room = room;
  }

  get(number) {
    const copy = this.#copies.get(number);
    if (copy) this.put(number, copy);
    return copy;
  }

  put(number, copy) {
    this.#copies.delete(number);
    this.#copies.set(number, copy);
    let bytes = 0;
    for (const kept of new Set(this.#copies.values())) bytes += kept.bytes;
    for (const [oldest, kept] of this.#copies) {
      if (bytes <= this.#room || oldest === number) break;
      this.#copies.delete(oldest);
      bytes -= kept.bytes;
    }
  }

  forget(numbers) {
    for (const number of numbers) this.#copies.delete(number);
  }
}

function answer(request, session, shelf) {
  shelf.forget(request.forget ?? []);
  if ("start" in request) session.start(request.start);
  else if ("reseed" in request) session.perform(JSON.stringify({ reseed: request.reseed }), Infinity, Infinity);
  else if ("run" in request) return session.perform(JSON.stringify({ run: request.run }), request.wall, request.cpu);
  else if ("load" in request) {
    const copy = shelf.get(request.load);
    if (copy) session.load(copy);
    return { found: copy !== undefined };
  } else if ("save" in request) {
    const copy = session.copy();
    if (!copy) return { unfit: session.unfit() };
    shelf.put(request.save, copy);
    return { bytes: copy.bytes };
  }
  return {};
}

async function main() {
  const settings = JSON.parse(readFrame());
  const watch = new Watch();
  const { python, memory } = await startMachine(settings, watch);
  const call = (expression) => python.runPython(`from _elpo_sandbox.pyodide import session; session.${expression}`);
  if (settings.heap === null) {
    call(`prepare(${JSON.stringify(settings.preload)})`);
    writeFrame(python.makeMemorySnapshot());
    return;
  }
  call("adopt()");
  const copies = new Copies(python._module, memory, { sealed: SEALED, fileBytes: settings.fileBytes });
  const session = new Session(call("answer"), watch, copies);
  const shelf = new Shelf(settings.copiesBytes);
  writeFrame(JSON.stringify({ ready: true }));
  for (let frame = readFrame(); frame !== null; frame = readFrame()) {
    writeFrame(JSON.stringify(answer(JSON.parse(frame), session, shelf)));
  }
}

for (const name of ["log", "info", "warn", "error", "debug", "trace"]) console[name] = () => {};
try {
  await main();
  process.exit(0);
} catch (error) {
  // Python called `exit` in C, or a fatal error: the status is all that is left to tell.
  process.stderr.write(`${error?.stack ?? error}\n`);
  process.exit(typeof error?.status === "number" ? error.status : 70);
}
