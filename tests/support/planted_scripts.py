"""Fill scripts of the lease protocol that are wrong, for `planted_bugs`."""

from __future__ import annotations

from headrace.gateway.cached.scripts import Script


def fill_script(step: str) -> Script:
    """A FILL of another kind: `step` is done for each pair, and says in `put` whether to fill."""
    return Script(f"""
local answers = {{}}
local first = redis.call('GET', KEYS[2])
for i = 1, #KEYS, 2 do
  local at = (i - 1) / 2 * 3
  local token, block = ARGV[at + 1], ARGV[at + 2]
  local lease = redis.call('GET', KEYS[i + 1])
  local put = true
  {step}
  if put then
    redis.call('DEL', KEYS[i + 1])
    redis.call('SET', KEYS[i], block, 'PX', ARGV[at + 3])
  end
  answers[#answers + 1] = put and token .. KEYS[i] or 0
end
return answers
""")


UNCONDITIONAL_FILL = fill_script("")
FILL_UNLESS_ANOTHERS = fill_script(
    "put = not lease or string.sub(lease, 1, 8) == token",
)
FILL_WITHOUT_OBSERVATION = fill_script(
    "put = lease and string.sub(lease, 1, 8) == token",
)
FILL_ABSENT_ALWAYS = fill_script(
    "put = string.byte(block, 2) == 1 or lease and string.sub(lease, 1, 8) == token",
)
"""The second byte of a block is its flags; 1 is an absent row."""
FILL_BY_THE_FIRST_LEASE = fill_script(
    "put = first and string.sub(first, 1, 8) == token",
)
"""One lease is looked at for all blocks of a call."""
