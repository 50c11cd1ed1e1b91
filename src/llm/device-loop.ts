/** Decoding on the GPU: the step is recorded once, the device itself prepares the next one, and each step is submitted before the last one's token is read. */
import { core as mx, type MxArray } from "../index.ts";
import type { PromptCache } from "./cache.ts";
import { DecodeStep, type RecordableModel } from "./decode.ts";
import type { LogitsProcessor, Sampler } from "./sample.ts";

/** Positions reserved at once, so that the buffers do not move (and the step need not be recorded anew) often. */
const mostReserved = 2048;
/** Tokens that the device remembers. */
const logSize = 4096;

/**
 * Tokens of a model behind a cache, made one after the other on the GPU. A step's number is the number of tokens before it, the prompt's included: its key is
 * [seed, number], so that a text does not depend on where its steps ran.
 */
export class DeviceLoop {
  readonly #model: RecordableModel;
  readonly #cache: PromptCache;
  readonly #choose: Sampler;
  readonly #processors: readonly LogitsProcessor[];
  readonly #seed: number;
  readonly #state = mx.array([0, 0, 0, 0], mx.int32);
  readonly #views: { readonly token: MxArray; readonly position: MxArray; readonly length: MxArray; readonly step: MxArray };
  readonly #history = mx.loopHistory(logSize);
  #recording: mx.Recording | undefined;
  #logits: MxArray | undefined;
  #kept: MxArray | undefined;
  /** Work of the steps that are submitted and not yet read. */
  #inFlight: { wait(): void }[] = [];
  #generation = -1;
  /** Numbers of the next step to submit and to read. */
  #submitted = 0;
  #read = 0;
  #last = -1;
  /** Positions in the caches behind the last step. */
  #offset = -1;
  /** Steps to let pass after a refusal, and those that are left of them. */
  #pause = 0;
  #paused = 0;
  #capacity: number | undefined;
  /** Recordings that were made, steps that ran one again, and attempts to record that were refused. */
  readonly counters = { recorded: 0, replayed: 0, refused: 0 };

  /** `seed`: the first word of the keys of draws. */
  constructor(model: RecordableModel, cache: PromptCache, choose: Sampler, processors: readonly LogitsProcessor[] = [], seed = 0) {
    this.#model = model;
    this.#cache = cache;
    this.#choose = choose;
    this.#processors = processors;
    this.#seed = seed;
    const part = (i: number): MxArray => this.#state.index(mx.Slice(i, i + 1));
    this.#views = mx.tidy(() => ({ token: mx.reshape(part(0), [1, 1]), position: part(1), length: part(2), step: part(3) }));
    mx.eval(this.#views);
  }
  static supports(model: RecordableModel, cache: PromptCache, choose: Sampler, processors: readonly LogitsProcessor[] = []): boolean {
    const chooses = choose.temperature !== undefined || choose.recordable === true || choose.keyed === true;
    return chooses && processors.every((p) => p.recent && p.recent.context <= logSize) && mx.defaultDevice().type === "gpu" && DecodeStep.supports(model, cache);
  }

  /**
   * The token behind `tokens`, of which all but the last are in the caches (or were cut from them); `left` more will be asked for at most, this one included.
   * Undefined when the step can not be recorded now: then the caller makes it, and further ones are tried again.
   */
  step(tokens: readonly number[], left: number): number | undefined {
    const token = tokens.at(-1) as number;
    const stands = this.#recording !== undefined && this.#generation === this.#generations();
    if (stands && (token !== this.#last || tokens.length !== this.#read || this.#cache[0]?.offset !== this.#offset)) this.#moveTo(tokens);
    if (!stands || (this.#inFlight.length === 0 && this.#room() === 0)) {
      const tries = this.tries;
      this.#paused--;
      if (!tries || !this.#start(tokens, left)) return undefined;
    }
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
    return Math.min(...this.#cache.map((c) => c.room)) - (this.#submitted - this.#read);
  }
  /**
   * False while it is too early to try again: what refused a recording may last, and an attempt costs a step. New buffers may have removed it. Before an attempt nobody
   * else should hold the caches' buffers, not even a recording.
   */
  get tries(): boolean {
    return this.#paused <= 0 || this.#cache[0]?.keys?.shape[2] !== this.#capacity;
  }
  #refuse(): false {
    this.counters.refused++;
    this.#pause = Math.min(256, 2 * this.#pause + 1);
    this.#paused = this.#pause - 1;
    this.#capacity = this.#cache[0]?.keys?.shape[2];
    return false;
  }
  /** The caches were cut back, or another token follows: what was submitted ahead does not count. */
  #moveTo(tokens: readonly number[]): void {
    const offset = this.#cache[0]?.offset ?? 0;
    this.#inFlight = [];
    this.#submitted = tokens.length;
    this.#read = tokens.length;
    mx.overwrite(this.#state, [tokens.at(-1) as number, offset, offset + 1, tokens.length]);
    if (this.#processors.some((p) => p.recent && p.recent.context > 0)) {
      const ring = new Int32Array(logSize);
      for (let i = Math.max(0, tokens.length - logSize); i < tokens.length; i++) ring[i % logSize] = tokens[i] as number;
      mx.overwrite(this.#history.array, ring);
    }
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
  /** Records the step that reads the last token, which runs it. */
  #start(tokens: readonly number[], left: number): boolean {
    this.#release();
    for (const c of this.#cache) c.reserve(Math.max(1, Math.min(left, mostReserved)));
    this.#moveTo(tokens);
    // Buffers that have just grown are evaluated first: the recording must only append to them.
    mx.eval(this.#cache.map((c) => c.state));
    const [recording, logits, kept] = mx.tidy(() => {
      const { token, step, ...at } = this.#views;
      const l = this.#processed(this.#model.nextLogits(token, this.#cache, at));
      const row = Math.ceil((l.size * l.itemsize) / 4) * (4 / l.itemsize);
      const k = mx.zeros([2, row], l.dtype);
      mx.eval(k);
      const arrays = { state: this.#state, history: this.#history.array, logits: l, kept: k, choice: this.#choiceOf(l, step) };
      return [mx.Recording.loop(arrays, this.#cache.map((c) => c.state)), l, k, this.#cache] as const;
    });
    this.#logits = logits;
    this.#kept = kept;
    this.counters.recorded++;
    if (recording.refused !== undefined || !recording.submitted) {
      recording.dispose();
      return this.#refuse();
    }
    this.#pause = 0;
    this.#recording = recording;
    this.#generation = this.#generations();
    this.#submitted++;
    this.#inFlight = [recording.submitted];
    return true;
  }
  #processed(logits: MxArray): MxArray {
    let l = logits;
    for (const { recent } of this.#processors) if (recent) l = recent.apply(this.#recent(recent.context), l);
    return l;
  }
  /** The last `n` tokens, -1 where there are fewer. */
  #recent(n: number): MxArray {
    const places = mx.add(this.#views.step, mx.arange(-n, 0, 1, mx.int32));
    const whole = (x: number): MxArray => mx.array(x, mx.int32);
    return mx.where(mx.less(places, whole(0)), whole(-1), mx.take(this.#history.array, mx.remainder(places, whole(logSize))));
  }
  #choiceOf(logits: MxArray, step: MxArray): mx.LoopArrays["choice"] {
    const choose = this.#choose;
    if (choose.temperature !== undefined) return { temperature: choose.temperature, seed: this.#seed };
    return mx.reshape(choose.keyed ? choose(logits, mx.concatenate([mx.array([this.#seed], mx.uint32), step.astype(mx.uint32)])) : choose(logits), [1]);
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
