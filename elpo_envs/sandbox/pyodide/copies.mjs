// Copies of a machine at one moment, and the way back to them.
//
// A copy holds the pages of the machine's memory that differ from an earlier copy and shares the others with it,
// and what the file system holds. Between two requests everything else that Python can see is in that memory, as
// long as the program has not made JavaScript hold something for it: `unfit` tells.

import { Files } from "./files.mjs";

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);

export class Copies {
  #machine;
  #memory;
  #files;
  #latest = null; // the copy that the memory differs least from, as far as is known
  #highest = 0; // memory beyond is known to be zero, or was never in use when it was looked at
  #held;

  /**
   * @param machine the Emscripten module.
   * @param {WebAssembly.Memory} memory its memory.
   * @param {{sealed: string[], fileBytes: number}} options as for `Files`.
   */
  constructor(machine, memory, { sealed, fileBytes }) {
    this.#machine = machine;
    this.#memory = memory;
    this.#files = new Files(machine.FS, sealed, fileBytes);
    this.#files.record(null);
    this.#held = this.#heldByJavaScript();
  }

  /** Why a copy would not be exact now, or null. */
  unfit() {
    if (this.#held !== this.#heldByJavaScript()) return "the program made objects that live in JavaScript";
    return this.#files.unfit();
  }

  /** A copy of the machine as it is now, with the bytes that it does not share with the one before. */
  take() {
    const memory = Buffer.from(this.#memory.buffer);
    const end = this.#end();
    const before = this.#latest?.pages ?? [];
    const changed = [];
    for (let page = 0, at = 0; at < end; page += 1, at += PAGE) {
      if (memory.compare(before[page] ?? ZEROS, 0, PAGE, at, at + PAGE) !== 0) changed.push(page);
    }
    const block = new Uint8Array(changed.length * PAGE);
    const pages = new Array(end / PAGE);
    for (let page = 0; page < pages.length; page += 1) pages[page] = before[page] ?? ZEROS;
    changed.forEach((page, place) => {
      const room = block.subarray(place * PAGE, (place + 1) * PAGE);
      memory.copy(room, 0, page * PAGE);
      pages[page] = room;
    });
    const files = this.#files.record(this.#latest?.files);
    this.#latest = { pages, files, bytes: block.length + 8 * pages.length };
    return this.#latest;
  }

  /** Makes the machine what it was when `copy` was taken. */
  restore(copy) {
    const memory = Buffer.from(this.#memory.buffer);
    this.#end();
    copy.pages.forEach((page, number) => {
      const at = number * PAGE;
      if (memory.compare(page, 0, PAGE, at, at + PAGE) !== 0) memory.set(page, at);
    });
    const end = copy.pages.length * PAGE;
    memory.fill(0, end, Math.max(end, this.#highest));
    this.#highest = end;
    this.#files.restore(copy.files);
    this.#latest = copy;
    this.#held = this.#heldByJavaScript(); // nothing in this memory knows of what came later
  }

  /** Where the memory ends that is in use, in whole pages. */
  #end() {
    const { HEAPU32, _emscripten_get_sbrk_ptr: top } = this.#machine;
    const end = Math.ceil(HEAPU32[top() >>> 2] / PAGE) * PAGE;
    this.#highest = Math.max(this.#highest, end);
    return end;
  }

  #heldByJavaScript() {
    const { _hiwire_num_refs: references, wasmTable, freeTableIndexes } = this.#machine;
    return [references?.(), wasmTable.length, freeTableIndexes?.length].join();
  }
}
