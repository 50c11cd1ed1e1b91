/** Decoding one token at a time: the work of a step is recorded once and run again for each token. */
import { core as mx, type MxArray } from "../index.ts";
import type { PromptCache } from "./cache.ts";
import type { Sampler } from "./sample.ts";
import type { StepPosition } from "./transformer.ts";

/** What recording needs of a model. */
export interface RecordableModel {
  nextLogits(ids: MxArray, cache?: PromptCache, at?: StepPosition): MxArray;
  readonly recordable?: boolean;
}

/**
 * A model's step for one token behind a cache. Token and position lie in arrays that the recorded kernels read. The recording is made anew when the
 * cache's buffers move: when they grow (every 256 positions), or when somebody else extended the cache meanwhile.
 */
export class DecodeStep {
  readonly #model: RecordableModel;
  readonly #cache: PromptCache;
  readonly #choose: Sampler | undefined;
  readonly #token = mx.array([[0]], mx.int32);
  readonly #at: StepPosition = { position: mx.array([0], mx.int32), length: mx.array([0], mx.int32) };
  #recording: mx.Recording | undefined;
  #generation = -1;
  #logits: MxArray | undefined;
  #choice: MxArray | undefined;
  /** Steps that were recorded, and steps that ran a recording. */
  readonly counters = { recorded: 0, replayed: 0 };

  /** `choose` is recorded with the step when it allows that. */
  constructor(model: RecordableModel, cache: PromptCache, choose?: Sampler) {
    this.#model = model;
    this.#cache = cache;
    this.#choose = choose?.recordable ? choose : undefined;
  }
  /** True when steps of this model behind this cache can be recorded. */
  static supports(model: RecordableModel, cache: PromptCache): boolean {
    return mx.Recording.enabled && model.recordable === true && cache.length > 0 && cache.every((c) => c.appendable && c.keys?.shape[0] === 1);
  }

  /** Runs the step. Logits (1, V) are valid until the next call; `choice` is the token when the sampler was recorded. */
  run(token: number): { logits: MxArray; choice: number | undefined } {
    const offset = this.#cache[0]?.offset ?? 0;
    mx.overwrite(this.#token, [token]);
    mx.overwrite(this.#at.position, [offset]);
    mx.overwrite(this.#at.length, [offset + 1]);
    for (const c of this.#cache) c.reserve();
    if (this.#recording && this.#generation === this.#generations()) {
      this.#recording.run();
      this.counters.replayed++;
    } else this.#record();
    for (const c of this.#cache) c.advance();
    return { logits: this.#logits as MxArray, choice: this.#choice?.item() as number | undefined };
  }
  #generations(): number {
    return this.#cache.reduce((sum, c) => sum + c.generation, 0);
  }
  #record(): void {
    this.#release();
    // Buffers that have just grown are evaluated first: the recording must only append to them.
    mx.eval(this.#cache.map((c) => c.state));
    const [recording, logits, choice] = mx.tidy(() => {
      const l = this.#model.nextLogits(this.#token, this.#cache, this.#at);
      const y = this.#choose?.(l);
      return [
        mx.Recording.evaluate(
          l,
          y,
          this.#cache.map((c) => c.state),
        ),
        l,
        y,
        this.#cache,
      ] as const;
    });
    this.#recording = recording.refused === undefined ? recording : undefined;
    if (!this.#recording) recording.dispose();
    this.#logits = logits;
    this.#choice = choice;
    this.#generation = this.#generations();
    this.counters.recorded++;
  }
  #release(): void {
    this.#recording?.dispose();
    mx.dispose(this.#logits, this.#choice);
    this.#recording = undefined;
    this.#logits = undefined;
    this.#choice = undefined;
  }
  dispose(): void {
    this.#release();
    mx.dispose(this.#token, this.#at);
  }
}
