/**
 * Command streams: what the addon's `submit` and `record` take, as words (native/stream.cc). Every operation declares what it reads and
 * writes; barriers come from that. A kernel that depends on a kernel gets the narrow barrier (shader write to shader read or write), which
 * costs half of a broad one on an H200; copies, indirect dispatches and the host have barriers of their own.
 */

/** A range of bytes of a buffer. */
export interface Range {
  readonly buffer: number;
  readonly offset: number;
  readonly bytes: number;
}

const code = { dispatch: 1, dispatchIndirect: 2, barrier: 3, transferBarrier: 4, indirectBarrier: 5, hostBarrier: 6, copy: 7, fill: 8, update: 9, timestamp: 10 } as const;
/** Who touches memory: a kernel, a copy or fill, the reading of an indirect dispatch's counts, the host. */
type Agent = "kernel" | "transfer" | "indirect" | "host";
const agents: readonly Agent[] = ["kernel", "transfer", "indirect", "host"];
type Barrier = "barrier" | "transferBarrier" | "indirectBarrier" | "hostBarrier";

interface Access {
  readonly agent: Agent;
  readonly write: boolean;
  readonly range: Range;
}
const overlaps = (a: Range, b: Range): boolean => a.buffer === b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
const conflict = (a: Access, b: Access): boolean => (a.write || b.write) && overlaps(a.range, b.range);

/** The barrier that orders `later` behind `earlier`. */
function barrierBetween(earlier: Agent, later: Agent): Barrier {
  if (later === "host") return "hostBarrier";
  if (later === "indirect") return "indirectBarrier";
  return earlier === "kernel" && later === "kernel" ? "barrier" : "transferBarrier";
}
/** What each barrier orders: accesses of `before` are done and visible to `after`. */
const orders: Readonly<Record<Barrier, { readonly before: readonly Agent[]; readonly after: readonly Agent[] }>> = {
  barrier: { before: ["kernel"], after: ["kernel"] },
  transferBarrier: { before: ["kernel", "transfer", "indirect"], after: ["kernel", "transfer"] },
  indirectBarrier: { before: ["kernel", "transfer"], after: ["indirect"] },
  hostBarrier: { before: ["kernel", "transfer"], after: ["host"] },
};
const covers = (barrier: Barrier, earlier: Agent, later: Agent): boolean => orders[barrier].before.includes(earlier) && orders[barrier].after.includes(later);

export interface StreamOptions {
  /** Insert barriers from the declared accesses (default). Without, `barrier` places them by hand. */
  readonly automatic?: boolean;
  /** Keep a log of accesses and barriers, so that `hazards` can check the whole stream. */
  readonly debug?: boolean;
  /** Where a range lies for comparisons, when several buffers show the same memory. */
  readonly canonical?: (range: Range) => Range;
  /** Begin with a barrier that orders this stream behind earlier submissions (default; work of two submissions may overlap without). */
  readonly ordered?: boolean;
}

type Entry = { readonly accesses: readonly Access[]; readonly name: string } | { readonly barrier: Barrier };

/** Builds one command stream. May be used again after `clear`; the words are then overwritten. */
export class CommandStream {
  /** The first `length` words are the stream. */
  words = new Uint32Array(1024);
  length = 0;
  /** Barriers in the stream so far, by kind. */
  readonly barriers: Record<Barrier, number> = { barrier: 0, transferBarrier: 0, indirectBarrier: 0, hostBarrier: 0 };
  private readonly automatic: boolean;
  private readonly ordered: boolean;
  private readonly log: Entry[] | undefined;
  private readonly canonical: ((range: Range) => Range) | undefined;
  /** For each agent, the accesses that it is not yet ordered behind. */
  private readonly open: Record<Agent, Access[]> = { kernel: [], transfer: [], indirect: [], host: [] };

  constructor(options: StreamOptions = {}) {
    this.automatic = options.automatic ?? true;
    this.ordered = options.ordered ?? true;
    this.log = options.debug ? [] : undefined;
    this.canonical = options.canonical;
    this.begin();
  }

  clear(): void {
    this.length = 0;
    for (const agent of agents) this.open[agent] = [];
    if (this.log) this.log.length = 0;
    for (const name of Object.keys(this.barriers) as Barrier[]) this.barriers[name] = 0;
    this.begin();
  }
  private begin(): void {
    if (this.ordered) this.barrier("transferBarrier");
  }

  /** Runs a kernel on x * y * z workgroups. `push` are its push constants. */
  dispatch(pipeline: number, groups: readonly [number, number, number], push: ArrayLike<number>, reads: readonly Range[], writes: readonly Range[], name = "kernel"): void {
    this.touch("kernel", reads, writes, name);
    this.reserve(6 + push.length);
    this.put(code.dispatch, pipeline, groups[0], groups[1], groups[2]);
    this.putPush(push);
  }
  /** Runs a kernel whose three workgroup counts lie at `counts`. */
  dispatchIndirect(pipeline: number, counts: Range, push: ArrayLike<number>, reads: readonly Range[], writes: readonly Range[], name = "kernel"): void {
    this.order([{ agent: "indirect", write: false, range: counts }]);
    this.touch("kernel", reads, writes, name, { agent: "indirect", write: false, range: counts });
    this.reserve(6 + push.length);
    this.put(code.dispatchIndirect, pipeline, counts.buffer);
    this.put64(counts.offset);
    this.putPush(push);
  }
  copy(source: Range, target: Range): void {
    if (source.bytes !== target.bytes) throw new Error(`[vulkan] copy: sizes differ, got ${source.bytes} and ${target.bytes} bytes`);
    this.touch("transfer", [source], [target], "copy");
    this.reserve(9);
    this.put(code.copy, source.buffer);
    this.put64(source.offset);
    this.put(target.buffer);
    this.put64(target.offset);
    this.put64(source.bytes);
  }
  /** Sets every 4-byte word of the range, which begins and ends at multiples of 4. */
  fill(target: Range, value: number): void {
    this.touch("transfer", [], [target], "fill");
    this.reserve(7);
    this.put(code.fill, target.buffer);
    this.put64(target.offset);
    this.put64(target.bytes);
    this.put(value);
  }
  /** Writes up to 16384 words that travel inside the stream. */
  update(target: Range, data: ArrayLike<number>): void {
    if (4 * data.length !== target.bytes) throw new Error(`[vulkan] update: ${4 * data.length} bytes for a range of ${target.bytes}`);
    this.touch("transfer", [], [target], "update");
    this.reserve(5 + data.length);
    this.put(code.update, target.buffer);
    this.put64(target.offset);
    this.putPush(data);
  }
  /**
   * Appends a stream that was built before, with its own barriers, as one operation: kernels that read and write these ranges, and updates of some. Returns where its
   * words begin, so that the caller can finish them.
   */
  append(words: Uint32Array, reads: readonly Range[], writes: readonly Range[], updates: readonly Range[], name: string): number {
    this.touchAll([...this.accesses("kernel", reads, writes), ...this.accesses("transfer", [], updates)], name);
    this.reserve(words.length);
    const start = this.length;
    this.words.set(words, start);
    this.length += words.length;
    return start;
  }
  /** The host will read these ranges when the stream is done. */
  hostReads(ranges: readonly Range[]): void {
    this.touch("host", ranges, [], "host");
  }
  timestamp(query: number): void {
    this.reserve(2);
    this.put(code.timestamp, query);
  }
  barrier(kind: Barrier): void {
    this.reserve(1);
    this.put(code[kind]);
    this.barriers[kind]++;
    this.log?.push({ barrier: kind });
    const { before, after } = orders[kind];
    for (const agent of after) this.open[agent] = this.open[agent].filter((a) => !before.includes(a.agent));
  }

  /** Pairs of operations that touch the same bytes, one of them writing, without a barrier between that orders them. Needs `debug`. */
  hazards(): string[] {
    const log = this.log;
    if (!log) throw new Error("[vulkan] hazards: the stream keeps no log; make it with { debug: true }");
    const found: string[] = [];
    log.forEach((later, j) => {
      if ("barrier" in later) return;
      for (let i = 0; i < j; i++) {
        const earlier = log[i] as Entry;
        if ("barrier" in earlier || earlier.accesses.every((a) => a.agent === "host")) continue;
        const between = log.slice(i + 1, j);
        for (const a of earlier.accesses) {
          for (const b of later.accesses) {
            if (conflict(a, b) && !between.some((e) => "barrier" in e && covers(e.barrier, a.agent, b.agent))) found.push(describe(earlier.name, a, later.name, b));
          }
        }
      }
    });
    return found;
  }

  private accesses(agent: Agent, from: readonly Range[], to: readonly Range[]): Access[] {
    const reads = this.canonical ? from.map(this.canonical) : from;
    const writes = this.canonical ? to.map(this.canonical) : to;
    return [...reads.map((range) => ({ agent, write: false, range })), ...writes.map((range) => ({ agent, write: true, range }))];
  }
  private touch(agent: Agent, from: readonly Range[], to: readonly Range[], name: string, extra?: Access): void {
    this.touchAll(this.accesses(agent, from, to), name, extra);
  }
  private touchAll(accesses: Access[], name: string, extra?: Access): void {
    this.order(accesses);
    if (extra) accesses.push(extra);
    // The host reads when the stream is done: nothing in it comes later.
    if (accesses[0]?.agent !== "host") for (const each of agents) this.open[each].push(...accesses);
    this.log?.push({ accesses, name });
  }
  /** Inserts the barriers that these accesses need. */
  private order(accesses: readonly Access[]): void {
    if (!this.automatic) return;
    for (const b of accesses) {
      for (;;) {
        const a = this.open[b.agent].find((x) => conflict(x, b));
        if (!a) break;
        this.barrier(barrierBetween(a.agent, b.agent));
      }
    }
  }

  private reserve(n: number): void {
    if (this.length + n <= this.words.length) return;
    const grown = new Uint32Array(Math.max(2 * this.words.length, this.length + n));
    grown.set(this.words.subarray(0, this.length));
    this.words = grown;
  }
  private put(...words: number[]): void {
    for (const w of words) this.words[this.length++] = w;
  }
  private put64(x: number): void {
    this.put(x >>> 0, Math.floor(x / 2 ** 32));
  }
  private putPush(push: ArrayLike<number>): void {
    this.words[this.length++] = push.length;
    for (let i = 0; i < push.length; i++) this.words[this.length++] = push[i] as number;
  }
}

function describe(earlier: string, a: Access, later: string, b: Access): string {
  const what = (x: Access): string => (x.write ? "writes" : "reads");
  return `${later} ${what(b)} what ${earlier} ${what(a)}: buffer ${b.range.buffer}, bytes ${Math.max(a.range.offset, b.range.offset)} and on`;
}
