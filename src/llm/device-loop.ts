/** Decoding on the GPU: the step is recorded once, the device itself prepares the next one, and each step is submitted before the last one's token is read. */
import { core as mx, type MxArray } from "../index.ts";
import type { PromptCache } from "./cache.ts";
import { DecodeStep, type RecordableModel } from "./decode.ts";
import type { Sampler } from "./sample.ts";

/** Positions reserved at once, so that the buffers do not move (and the step need not be recorded anew) often. */
const mostReserved = 2048;
/** Most steps of one recording. */
const logSize = 4096;

/** Tokens of a model behind a cache, made one after the other on the GPU. */
export class DeviceLoop {
  readonly #model: RecordableModel;
  readonly #cache: PromptCache;
  readonly #temperature: number;
  /** Follows from the global random state, so that a seed gives the same text. Each recording has its own: its steps are numbered from 0 again. */
  #seed = 0;
  readonly #state = mx.array([0, 0, 0, 0], mx.int32);
  readonly #views: { readonly token: MxArray; readonly position: MxArray; readonly length: MxArray };
  readonly #history = mx.loopHistory(logSize);
  #recording: mx.Recording | undefined;
  #logits: MxArray | undefined;
  #kept: MxArray | undefined;
  /** Work of the steps that are submitted and not yet read. */
  #inFlight: { wait(): void }[] = [];
  #generation = -1;
  /** Steps submitted and read since the recording was made. */
  #submitted = 0;
  #read = 0;
  #last = -1;
  /** Positions in the caches behind the last step. */
  #offset = -1;
  /** Recordings that were made, and steps that ran one again. */
  readonly counters = { recorded: 0, replayed: 0 };

  constructor(model: RecordableModel, cache: PromptCache, choose: Sampler) {
    this.#model = model;
    this.#cache = cache;
    this.#temperature = choose.temperature ?? 0;
    const part = (i: number): MxArray => this.#state.index(mx.Slice(i, i + 1));
    this.#views = mx.tidy(() => ({ token: mx.reshape(part(0), [1, 1]), position: part(1), length: part(2) }));
    mx.eval(this.#views);
  }
  static supports(model: RecordableModel, cache: PromptCache, choose: Sampler): boolean {
    return choose.temperature !== undefined && mx.defaultDevice().type === "gpu" && DecodeStep.supports(model, cache);
  }

  /** The token behind `token`; `left` more will be asked for at most, this one included. Undefined when the step can not be recorded. */
  step(token: number, left: number): number | undefined {
    const stands = this.#recording !== undefined && this.#generation === this.#generations();
    if (stands && (token !== this.#last || this.#cache[0]?.offset !== this.#offset)) this.#moveTo(token);
    if (!stands || (this.#inFlight.length === 0 && this.#room() === 0)) if (!this.#start(token, left)) return undefined;
    if (this.#inFlight.length === 0) this.#submit();
    if (left > 1 && this.#inFlight.length < 2 && this.#room() > 0) this.#submit();
    (this.#inFlight.shift() as { wait(): void }).wait();
    this.#last = this.#history.at(this.#read++);
    for (const c of this.#cache) c.advance();
    this.#offset = this.#cache[0]?.offset ?? 0;
    return this.#last;
  }
  /** Logits (1, V) that the last token was chosen from; valid until the next step. */
  get logits(): MxArray {
    const kept = this.#kept as MxArray;
    const [B, V] = (this.#logits as MxArray).shape as [number, number];
    const row = (this.#read - 1) & 1;
    return mx.reshape(kept.index(mx.Slice(row, row + 1), mx.Slice(0, V)), [B, V]);
  }
  /** Positions that a further step may write. */
  #room(): number {
    const ahead = this.#submitted - this.#read;
    return Math.min(logSize - this.#submitted, Math.min(...this.#cache.map((c) => c.room)) - ahead);
  }
  /** The caches were cut back, or another token follows: what was submitted ahead does not count. */
  #moveTo(token: number): void {
    const offset = this.#cache[0]?.offset ?? 0;
    this.#inFlight = [];
    this.#read = this.#submitted;
    mx.overwrite(this.#state, [token, offset, offset + 1, this.#submitted]);
  }
  #generations(): number {
    return this.#cache.reduce((sum, c) => sum + c.generation, 0);
  }
  #submit(): void {
    const recording = this.#recording as mx.Recording;
    recording.run();
    this.counters.replayed++;
    this.#submitted++;
    this.#inFlight.push(recording.submitted as { wait(): void });
  }
  /** Records the step that reads `token`, which runs it. */
  #start(token: number, left: number): boolean {
    this.#release();
    const offset = this.#cache[0]?.offset ?? 0;
    if (this.#temperature !== 0) this.#seed = mx.tidy(() => mx.random.bits([1]).item() as number);
    for (const c of this.#cache) c.reserve(Math.max(1, Math.min(left, mostReserved)));
    mx.overwrite(this.#state, [token, offset, offset + 1, 0]);
    // Buffers that have just grown are evaluated first: the recording must only append to them.
    mx.eval(this.#cache.map((c) => c.state));
    const { token: ids, ...at } = this.#views;
    const [recording, logits, kept] = mx.tidy(() => {
      const l = this.#model.nextLogits(ids, this.#cache, at);
      const row = Math.ceil((l.size * l.itemsize) / 4) * (4 / l.itemsize);
      const k = mx.zeros([2, row], l.dtype);
      mx.eval(k);
      const arrays = { state: this.#state, history: this.#history.array, logits: l, kept: k, temperature: this.#temperature, seed: this.#seed };
      return [mx.Recording.loop(arrays, this.#cache.map((c) => c.state)), l, k, this.#cache] as const;
    });
    this.#logits = logits;
    this.#kept = kept;
    this.counters.recorded++;
    if (recording.refused !== undefined || !recording.submitted) {
      recording.dispose();
      return false;
    }
    this.#recording = recording;
    this.#generation = this.#generations();
    this.#submitted = 1;
    this.#read = 0;
    this.#inFlight = [recording.submitted];
    return true;
  }
  #release(): void {
    this.#recording?.dispose();
    mx.dispose(this.#logits, this.#kept);
    this.#recording = undefined;
    this.#inFlight = [];
    this.#last = -1;
  }
  dispose(): void {
    this.#release();
    mx.dispose(this.#state, this.#views, this.#history.array);
  }
}
