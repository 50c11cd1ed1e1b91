/** Key-value caches. */
import { core as mx, type MxArray } from "../index.ts";

/** Positions by which a cache grows. */
const STEP = 256;

/**
 * Keys and values of the positions seen so far, of one layer. New ones are written in place into buffers (B, H, capacity, D) that grow by
 * steps of 256; each buffer has exactly one handle, so the write can take it over.
 *
 * With a `window`, only positions that a later query can still see are kept: when a buffer is full, the last `window - 1` positions move
 * to its front, so memory stays bounded.
 *
 * Under `mx.tidy`, return the cache beside the result: its buffers may be new.
 */
export class KVCache {
  /** Number of positions seen: where the next one stands. */
  offset = 0;
  readonly window: number | undefined;
  keys: MxArray | undefined = undefined;
  values: MxArray | undefined = undefined;
  /** Position of the first row of the buffers. */
  #start = 0;
  #capacity = 0;
  /** Changes whenever the buffers may lie elsewhere. */
  generation = 0;

  constructor(window?: number) {
    this.window = window;
  }

  /** Rows that queries of the next `length` positions look at: all of them, or those in the window. */
  visible(length: number): number {
    const past = this.window === undefined ? this.offset : Math.min(this.offset, this.window - 1);
    return past + length;
  }

  /**
   * Appends keys and values (B, H, T, D) and gives those that their queries look at: views (B, H, visible(T), D) of the buffers.
   */
  update(keys: MxArray, values: MxArray): [keys: MxArray, values: MxArray] {
    if (this.keys?.disposed) throw new Error("[KVCache] the cache's arrays were disposed: a function under mx.tidy that extends a cache must return the cache, too");
    const length = keys.shape[2] as number;
    const rows = this.visible(length);
    this.#reserve(keys.shape, keys.dtype, values.shape, length);
    this.generation++;
    const at = this.offset - this.#start;
    const end = at + length;
    const place = ["...", mx.Slice(at, end), mx.Slice()] as const;
    const [k, v] = this.#buffers();
    k.indexPut_([...place], keys);
    v.indexPut_([...place], values);
    this.offset += length;
    const view = mx.Slice(end - rows, end);
    return [k.index("...", view, mx.Slice()), v.index("...", view, mx.Slice())];
  }
  /** True when single positions can be appended at a place that is read when the work runs. */
  get appendable(): boolean {
    return this.window === undefined && this.keys !== undefined && !this.keys.disposed;
  }
  /** Makes room for more positions behind the present ones. */
  reserve(length = 1): void {
    const [k, v] = this.#buffers();
    this.#reserve(k.shape, k.dtype, v.shape, length);
  }
  /** Positions that fit behind the present ones without new buffers. */
  get room(): number {
    return this.#capacity - (this.offset - this.#start);
  }
  /**
   * Writes keys and values (B, H, 1, D) of one position, `position` being an int32 array of one element, and gives the whole buffers (B, H, capacity, D).
   * Needs `reserve` before. Does not count the position: see `advance`.
   */
  append(keys: MxArray, values: MxArray, position: MxArray): [keys: MxArray, values: MxArray] {
    const old = this.#buffers();
    this.keys = mx.sliceUpdate(old[0], keys, position, [2]);
    this.values = mx.sliceUpdate(old[1], values, position, [2]);
    mx.dispose(old);
    this.generation++;
    return [this.keys, this.values];
  }
  /** Takes the buffers that an op made of the present ones by writing one position. Does not count it: see `advance`. */
  replace(keys: MxArray, values: MxArray): void {
    mx.dispose(this.#buffers());
    this.keys = keys;
    this.values = values;
    this.generation++;
  }
  /** The buffers (B, H, capacity, D). */
  get buffers(): readonly [keys: MxArray, values: MxArray] {
    return this.#buffers();
  }
  /** Counts a position that `append` wrote. */
  advance(): void {
    this.offset++;
  }
  #buffers(): [MxArray, MxArray] {
    if (!this.keys || !this.values) throw new Error("[KVCache] the cache has no buffers");
    return [this.keys, this.values];
  }

  /** Makes room for `length` more rows. */
  #reserve(keyShape: readonly number[], dtype: mx.Dtype, valueShape: readonly number[], length: number): void {
    const used = this.offset - this.#start;
    if (used + length <= this.#capacity) return;
    const kept = this.visible(0);
    const first = used - kept;
    const capacity = Math.ceil((kept + length + (this.window === undefined ? 0 : STEP)) / STEP) * STEP;
    const grow = (old: MxArray | undefined, [b = 1, h = 1, , d = 1]: readonly number[]): MxArray => {
      if (!old || kept === 0) return mx.zeros([b, h, capacity, d], dtype);
      const rest = mx.zeros([b, h, capacity - kept, d], dtype);
      return mx.concatenate([old.index("...", mx.Slice(first, used), mx.Slice()), rest], 2);
    };
    // The scope closes the views of the old buffers, which would keep them alive.
    const grown = mx.tidy(() => [grow(this.keys, keyShape), grow(this.values, valueShape)] as const);
    mx.dispose(this.keys, this.values);
    [this.keys, this.values] = grown;
    this.#start += first;
    this.#capacity = capacity;
    this.generation++;
  }

  /** True when the last positions can be forgotten: with a window, only while none was dropped. */
  get isTrimmable(): boolean {
    return this.#start === 0;
  }
  /** Forgets the last `n` positions; gives how many it did forget. */
  trim(n: number): number {
    if (!this.isTrimmable) return 0;
    const forgotten = Math.min(n, this.offset);
    this.offset -= forgotten;
    return forgotten;
  }
  /** The arrays held, for `mx.eval`. */
  get state(): MxArray[] {
    return this.keys && this.values ? [this.keys, this.values] : [];
  }
  dispose(): void {
    mx.dispose(this.keys, this.values);
    this.keys = undefined;
    this.values = undefined;
    this.generation++;
    this.offset = 0;
    this.#start = 0;
    this.#capacity = 0;
  }
}

/** One cache per layer. */
export type PromptCache = KVCache[];

/** Empty caches for a model: pass them to several calls of `generate` to keep what was already read. */
export const makePromptCache = (model: { makeCache(): PromptCache }): PromptCache => model.makeCache();

/** True when all layers can forget their last positions. */
export const canTrimPromptCache = (cache: PromptCache): boolean => cache.every((c) => c.isTrimmable);

/** Forgets the last `n` positions in all layers; gives how many were forgotten. */
export function trimPromptCache(cache: PromptCache, n: number): number {
  if (!canTrimPromptCache(cache)) return 0;
  return Math.min(...cache.map((c) => c.trim(n)));
}
