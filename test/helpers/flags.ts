/** Flags of the environment and tests. */

/**
 * For files that are about what a flag switches off: they run as if it were not set. Whole suites are run with generated kernels or compiled functions switched off; there
 * these files still test what they are about.
 */
export function asIfUnset(...flags: readonly string[]): void {
  for (const flag of flags) Reflect.deleteProperty(process.env, flag);
}
