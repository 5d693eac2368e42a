"""The lease protocol, as three Lua scripts over block keys and lease keys, each pair on its own.

A lease is a random token of 8 bytes with a short life. Who holds it may fill, while it stands; a
writer's invalidation deletes block and lease together, so a value read before the write can never
be filled after it.

Who misses but finds another's lease reads the store and does not fill. What it saw may be newer
than what the holder will fill, and a later hit would then go backwards; so it tells the lease the
digest of what it saw, and only a fill of equal bytes is taken (OBSERVE).
"""

from __future__ import annotations

import hashlib
from typing import Final

TOKEN_BYTES: Final = 8
LEASE_MS: Final = 2_000
"""Longer than any store read may take, short enough that a dead reader's key is soon filled."""


class Script:
    """A Lua script and its SHA-1, by which a node knows it once it was loaded."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324 - Redis names it so


TAKE_LEASES = Script("""
local answers = {}
for i = 1, #KEYS, 2 do
  local block = redis.call('GET', KEYS[i])
  if block then
    answers[#answers + 1] = block
  elseif redis.call('SET', KEYS[i + 1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
""")
"""KEYS block key and lease key in turn; ARGV token, life in ms. Per pair: the block, if one was put
meanwhile; 1 when the lease is ours; 0 when it is another's."""

FILL = Script("""
local answers = {}
for i = 1, #KEYS, 2 do
  local at = (i - 1) / 2 * 3
  local token, block, life = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local lease = redis.call('GET', KEYS[i + 1])
  local answer = 0
  if lease and string.sub(lease, 1, 8) == token then
    redis.call('DEL', KEYS[i + 1])
    if #lease == 8 or string.sub(lease, 9) == redis.sha1hex(block) then
      redis.call('SET', KEYS[i], block, 'PX', life)
      answer = token .. KEYS[i]
    end
  end
  answers[#answers + 1] = answer
end
return answers
""")
"""KEYS block key and lease key in turn; ARGV token, block, ttl in ms in turn. Per pair: token and
block key when the block was put, so that another script's reply, or another fill's, is never taken
for this one's; else 0."""

OBSERVE = Script("""
for i = 1, #KEYS, 2 do
  local seen = ARGV[(i + 1) / 2]
  local block = redis.call('GET', KEYS[i])
  if block and block ~= seen then redis.call('DEL', KEYS[i]) end
  local lease = redis.call('GET', KEYS[i + 1])
  if lease then
    local digest = redis.sha1hex(seen)
    if #lease == 8 then
      redis.call('SET', KEYS[i + 1], lease .. digest, 'KEEPTTL')
    elseif string.sub(lease, 9) ~= digest then
      redis.call('DEL', KEYS[i + 1])
    end
  end
end
return #KEYS
""")
"""KEYS block key and lease key in turn; ARGV the block of each pair as seen in the store."""

LOOK = Script("""
return {
  redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2])
}
""")
"""KEYS block key, lease key: the block, its life in ms, the lease; what is not there is null. It is
no part of the protocol: `explain` alone asks, so that nodes are not told of it beforehand."""

PAIRS_PER_CALL_MAX: Final = 250
"""Of one FILL or OBSERVE: a node does nothing else while a script runs."""

ALL: Final = (TAKE_LEASES, FILL, OBSERVE)
