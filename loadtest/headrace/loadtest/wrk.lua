-- Sends the bodies of a file in turn and prints what wrk measured as one JSON line.
-- Environment: BODIES (one body a line), REQUEST_PATH, ACCEPT.
local bodies, at = {}, 0
local accept = os.getenv("ACCEPT")

function init(_)
  for line in io.lines(os.getenv("BODIES")) do
    bodies[#bodies + 1] = wrk.format("POST", os.getenv("REQUEST_PATH"),
      { ["Content-Type"] = "application/json", ["Accept"] = accept }, line)
  end
  at = math.random(#bodies)
end

function request()
  at = at % #bodies + 1
  return bodies[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"bytes":%d,"p50_ms":%.4f,"p99_ms":%.4f,"p999_ms":%.4f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
