// The file system of the machine lives in JavaScript, outside the memory that Python sees. This puts the parts that
// never change behind a seal, and records and puts back the rest.

const FILE_TOO_LARGE = 22; // error numbers of Emscripten
const READ_ONLY = 69;
const WRITE_BITS = 0o222;

export class Files {
  /**
   * @param FS the file system of the machine.
   * @param {string[]} sealed folders that are never to change again, with all below them.
   * @param {number} fileBytes upper bound on the size of a file.
   */
  constructor(FS, sealed, fileBytes) {
    this.FS = FS;
    this.sealed = new Set();
    const operations = new Map();
    for (const path of sealed) this.#seal(FS.lookupPath(path).node, operations);
    this.#bound(FS.filesystems.MEMFS, fileBytes);
  }

  /** Why the files cannot be recorded now, or null. */
  unfit() {
    const strange = this.FS.streams.some((stream) => stream && (stream.node.pipe || stream.node.sock));
    if (strange) return "a pipe or a socket is open";
    return this.FS.root.mount.mounts.length === this.mounts ? null : "a file system was mounted or unmounted";
  }

  /** Everything that a program could have changed; contents equal to those in `before` are shared with it. */
  record(before) {
    const { FS } = this;
    this.mounts ??= FS.root.mount.mounts.length;
    const nodes = new Map();
    this.#visit(FS.root, nodes, before);
    const streams = FS.streams.map((stream) => {
      if (!stream) return null;
      this.#visit(stream.node, nodes, before);
      return { stream, fields: { ...stream }, shared: { ...stream.shared } };
    });
    const chains = new Map();
    FS.nameTable.forEach((head, hash) => {
      const chain = [];
      for (let node = head; node; node = node.name_next) chain.push(node);
      if (chain.length) chains.set(hash, chain);
    });
    return { nodes, streams, chains, nextInode: FS.nextInode, currentPath: FS.currentPath };
  }

  /** Makes the files what they were when `record` returned this. */
  restore({ nodes, streams, chains, nextInode, currentPath }) {
    const { FS } = this;
    for (const [node, { fields, contents }] of nodes) {
      Object.assign(node, fields);
      if (contents instanceof Uint8Array) node.contents = contents.slice();
      else if (contents) node.contents = { ...contents };
    }
    FS.streams.length = 0;
    for (const entry of streams) {
      if (entry) {
        Object.assign(entry.stream, entry.fields);
        Object.assign(entry.stream.shared, entry.shared);
      }
      FS.streams.push(entry && entry.stream);
    }
    FS.nameTable.forEach((_, hash) => delete FS.nameTable[hash]);
    for (const [hash, chain] of chains) {
      FS.nameTable[hash] = chain[0];
      chain.forEach((node, place) => (node.name_next = chain[place + 1]));
    }
    FS.nextInode = nextInode;
    FS.currentPath = currentPath;
  }

  #visit(node, nodes, before) {
    if (nodes.has(node) || this.sealed.has(node)) return;
    const { FS } = this;
    const { name, parent, mode, atime, mtime, ctime, link, usedBytes } = node;
    const entry = { fields: { name, parent, mode, atime, mtime, ctime }, contents: null };
    nodes.set(node, entry);
    if (FS.isLink(mode)) entry.fields.link = link;
    if (!node.contents) return;
    if (FS.isFile(mode)) {
      entry.fields.usedBytes = usedBytes;
      const present = Buffer.from(node.contents.subarray(0, usedBytes));
      const earlier = before?.nodes.get(node)?.contents;
      entry.contents = earlier && present.equals(earlier) ? earlier : new Uint8Array(present);
    } else if (FS.isDir(mode)) {
      entry.contents = { ...node.contents };
      for (const child of Object.values(node.contents)) this.#visit(child, nodes, before);
    }
  }

  #seal(node, operations) {
    this.sealed.add(node);
    node.mode &= ~WRITE_BITS;
    const changes = ["setattr", "mknod", "rename", "unlink", "rmdir", "symlink"];
    node.node_ops = this.#readOnly(node.node_ops, changes, operations);
    node.stream_ops = this.#readOnly(node.stream_ops, ["write", "msync"], operations);
    if (this.FS.isDir(node.mode)) for (const child of Object.values(node.contents)) this.#seal(child, operations);
  }

  #readOnly(changeable, names, operations) {
    if (!operations.has(changeable)) {
      const refuse = () => {
        throw new this.FS.ErrnoError(READ_ONLY);
      };
      const refused = names.filter((name) => name in changeable).map((name) => [name, refuse]);
      operations.set(changeable, { ...changeable, ...Object.fromEntries(refused) });
    }
    return operations.get(changeable);
  }

  #bound(MEMFS, fileBytes) {
    const check = (size) => {
      if (size > fileBytes) throw new this.FS.ErrnoError(FILE_TOO_LARGE);
    };
    const { node, stream } = MEMFS.ops_table.file;
    const { setattr } = node;
    const { write } = stream;
    node.setattr = (target, attributes) => {
      check(attributes.size ?? 0);
      return setattr(target, attributes);
    };
    stream.write = (target, buffer, offset, length, position, canOwn) => {
      check(position + length);
      return write(target, buffer, offset, length, position, canOwn);
    };
  }
}
