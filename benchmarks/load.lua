-- Posts the bodies of a file in turn, one body per line, and prints wrk's measurements as JSON.
-- Defines no response(): with one, wrk would collect headers and bodies, and become the bottleneck.

local requests = {}
local sent = 0

function init(args)
  local headers = { ["Content-Type"] = args[2] }
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function done(summary, latency)
  local counts = {}
  for i = 1, #latency do
    local microseconds, count = latency(i)
    counts[i] = string.format("[%d,%d]", microseconds, count)
  end
  local errors = summary.errors
  io.write(string.format(
    '\n{"microseconds": %d, "requests": %d, "non_2xx": %d, "socket_errors": %d, "latencies": [%s]}\n',
    summary.duration, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(counts, ",")))
end
