// Starts Pyodide: a Python in WebAssembly, with the doors to this process closed as far as that is possible here.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const WASM_PAGE = 65536;
const SIGINT = 2;
const NO_PERMISSION = 63; // error number of Emscripten
const INSIST_MS = 250;
const now = performance.now.bind(performance); // before the machine gets a clock that tells

/** Folders of the machine that never change. */
export const SEALED = ["/lib", "/elpo", "/packages"];

/** Time for one call: raises KeyboardInterrupt in Python when it is up, again and again. */
export class Watch {
  /** Whether the clock or fresh randomness was asked for since this was last set to false. */
  impure = false;
  #wall = Infinity;
  #cpu = Infinity;
  #started = 0;
  #cpuBefore = 0;
  #insist = 0;
  #over = null;

  /** Starts a call of at most `wall` seconds and `cpu` seconds of CPU time. */
  start(wall, cpu) {
    this.#started = now();
    this.#cpuBefore = cpuSeconds();
    [this.#wall, this.#cpu, this.#over, this.#insist] = [wall, cpu, null, 0];
  }

  /** Ends the call; returns the seconds it took and which limit it went over: "wall", "cpu" or null. */
  stop() {
    const over = this.#check();
    [this.#wall, this.#cpu] = [Infinity, Infinity];
    return { seconds: (now() - this.#started) / 1000, over };
  }

  /** What Python asks every few dozen operations: a signal, or 0. */
  signal() {
    if (this.#wall === Infinity || this.#check() === null || now() < this.#insist) return 0;
    this.#insist = now() + INSIST_MS;
    return SIGINT;
  }

  #check() {
    if (this.#over !== null) return this.#over;
    const seconds = (now() - this.#started) / 1000;
    if (seconds >= this.#wall) this.#over = "wall";
    // Python has one thread, so it cannot have used more CPU time than went by.
    else if (seconds >= this.#cpu && cpuSeconds() - this.#cpuBefore >= this.#cpu) this.#over = "cpu";
    return this.#over;
  }
}

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Notes in `watch` when anything that differs from run to run is asked for. */
function noteImpurity(watch) {
  for (const [owner, name] of [
    [Date, "now"],
    [performance, "now"],
    [crypto, "randomFillSync"],
    [crypto.webcrypto, "getRandomValues"],
  ]) {
    const original = owner[name].bind(owner);
    owner[name] = (...given) => {
      watch.impure = true;
      return original(...given);
    };
  }
}

/** Changes what Pyodide's WebAssembly is given and gives, on its way through `WebAssembly.instantiate`. */
function intercept(watch, heapBytes, memoryBytes) {
  const caught = { memory: null };
  const instantiate = WebAssembly.instantiate;
  WebAssembly.instantiate = async (source, imports) => {
    const entries = imports?.env;
    if (!entries || !("_Py_CheckEmscriptenSignals_Helper" in entries)) return instantiate(source, imports);
    WebAssembly.instantiate = instantiate;
    entries._Py_CheckEmscriptenSignals_Helper = () => watch.signal();
    for (const name of ["system", "_emscripten_system", "__syscall_socket"]) {
      if (name in entries) entries[name] = () => -NO_PERMISSION;
    }
    const result = await instantiate(source, imports);
    const memory = entries.memory ?? result.instance.exports.memory;
    caught.memory = memory;
    const missing = heapBytes - memory.buffer.byteLength;
    // Where JavaScript makes the memory, before Pyodide 314, it is large enough.
    if (missing > 0 && !entries.memory) memory.grow(Math.ceil(missing / WASM_PAGE));
    memory.grow = (pages) => {
      if (memory.buffer.byteLength + pages * WASM_PAGE > memoryBytes) throw new RangeError("no more memory");
      return WebAssembly.Memory.prototype.grow.call(memory, pages);
    };
    return result;
  };
  return caught;
}

/** Copies a host's Python package, without its tests, or a module into the machine. */
function copyPackage(FS, from, to) {
  if (!fs.statSync(from).isDirectory()) {
    FS.writeFile(to, fs.readFileSync(from), { canOwn: true });
    return;
  }
  FS.mkdirTree(to);
  for (const { name } of fs.readdirSync(from, { withFileTypes: true })) {
    if (name !== "__pycache__" && name !== "tests") copyPackage(FS, path.join(from, name), `${to}/${name}`);
  }
}

/**
 * @param {{pyodide: string, sources: Object<string, string>, packages: Object<string, string>,
 *   heap: string | null, memoryBytes: number}} settings see `process.py`; without `heap` the machine can be saved.
 * @param {Watch} watch ends calls.
 * @returns Pyodide, and the memory of its WebAssembly.
 */
export async function startMachine({ pyodide, sources, packages, heap, memoryBytes }, watch) {
  const saved = heap === null ? null : fs.readFileSync(heap);
  noteImpurity(watch);
  const caught = intercept(watch, saved?.length ?? 0, memoryBytes);
  const fsInit = async (FS) => {
    FS.mkdirTree("/packages");
    for (const [name, from] of Object.entries(packages)) copyPackage(FS, from, `/packages/${name}`);
    for (const [name, text] of Object.entries(sources)) {
      FS.mkdirTree(path.posix.dirname(`/elpo/${name}`));
      FS.writeFile(`/elpo/${name}`, text);
    }
    FS.mkdirTree("/scratch");
  };
  const { loadPyodide } = await import(pathToFileURL(path.join(pyodide, "pyodide.mjs")));
  const silent = () => {}; // for standard input too: without one it would become a descriptor that does not block
  const python = await loadPyodide({
    indexURL: pyodide,
    jsglobals: {},
    env: { HOME: "/scratch", PYTHONHASHSEED: "0", PYTHONPATH: "/elpo:/packages", PYTHONDONTWRITEBYTECODE: "1" },
    stdin: silent,
    stdout: silent,
    stderr: silent,
    fsInit,
    ...(saved ? { _loadSnapshot: saved } : { _makeSnapshot: true }),
  });
  if (!caught.memory) throw new Error(`version ${python.version} of Pyodide is not one that this can run`);
  for (const device of ["random", "urandom"]) python.FS.unlink(`/dev/${device}`); // they have bytes in stock
  python.setInterruptBuffer([0]);
  delete python._api.config._loadSnapshot; // tens of megabytes that nothing needs any more
  return { python, memory: caught.memory };
}
