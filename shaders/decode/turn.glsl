// Sine and cosine of an angle given as a fraction of a turn in 2^-32 units: exact to reduce, so positions of any size keep their precision.
// Polynomials on an eighth of a turn to either side: Cephes (Moshier).
vec2 cosSin(uint fraction) {
  const uint quarter = (fraction + 0x20000000u) >> 30;
  const float x = float(int(fraction - (quarter << 30))) * 1.4629180792671596e-9;
  const float z = x * x;
  const float s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * x + x;
  const float c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
  const vec2 turned = (quarter & 1u) == 0 ? vec2(c, s) : vec2(-s, c);
  return (quarter & 2u) == 0 ? turned : -turned;
}
// The part of `position` times a 64-bit fraction of a turn (high and low word) that is left after whole turns.
uint turnsOf(uint position, uvec2 perPosition) {
  uint carry;
  uint ignored;
  umulExtended(position, perPosition.y, carry, ignored);
  return position * perPosition.x + carry;
}
