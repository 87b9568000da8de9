-- Appends chunks to a lane: all of them or none, each at most once, in rising order.
--
-- KEYS: ids, bodies, seq, accepted, then one mark per chunk
-- ARGV: lane, wake channel, most messages in the lane, seconds that a mark lives,
--       then per chunk: message id, count, head, tail
-- Returns the first order number of each chunk, or {-1, length} when the lane is full.

local ids, bodies, seq_key, accepted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lane, channel, most, mark_seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- A repeat of an append whose answer was lost: the first chunk's mark tells, as they come together.
local done = {}
for index = 5, #KEYS do
    local seq = redis.call("get", KEYS[index])
    if not seq then
        break
    end
    done[#done + 1] = seq
end
if #done > 0 then
    return done
end

local length = redis.call("hlen", bodies)
if length >= most then
    return {-1, length}
end

-- This server's clock, so that all web processes share one; never back, whatever the clock does.
local time = redis.call("time")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local seq = math.max(tonumber(redis.call("get", seq_key) or "0") + 1, now)

local firsts, total = {}, 0
for index = 5, #KEYS do
    local base = 4 + (index - 5) * 4
    local message_id, count = ARGV[base + 1], tonumber(ARGV[base + 2])
    local first = string.format("%.0f", seq)
    redis.call("set", KEYS[index], first, "ex", mark_seconds)
    redis.call("hset", bodies, message_id, ARGV[base + 3] .. first .. ARGV[base + 4])
    redis.call("rpush", ids, message_id)
    firsts[#firsts + 1] = first
    seq = seq + count
    total = total + count
end
redis.call("set", seq_key, string.format("%.0f", seq - 1))
redis.call("hincrby", accepted, lane, total)
redis.call("publish", channel, "")
return firsts
