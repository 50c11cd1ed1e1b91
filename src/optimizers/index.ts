/** Optimizers and learning rate schedules, with mlx.optimizers' names in camelCase. */
export { clipGradNorm } from "./clip.ts";
export { MultiOptimizer } from "./multi.ts";
export { type ArrayTree, type LearningRate, Optimizer, type Schedule } from "./optimizer.ts";
export { Adafactor } from "./adafactor.ts";
export { AdaDelta, Adagrad, Adam, AdamW, Adamax, Lion, RMSprop, SGD } from "./optimizers.ts";
export { Muon } from "./muon.ts";
export { cosineDecay, exponentialDecay, joinSchedules, linearSchedule, stepDecay } from "./schedulers.ts";
