-- Appends chunks to a lane: all of them or none, each at most once, in rising order.
--
-- KEYS: ids, bodies, delayed bodies, seq, accepted, queued, marks, and the batch if it is one
-- ARGV: lane, wake channel, high-water mark of the lane, seconds that a mark lives, mark,
--       seconds that a batch lives, whether the batch ends with this append (1 or 0),
--       bytes of this append in memory, share of maxmemory that the lane may fill,
--       then per chunk: message id, documents in it, head, tail
-- Returns {1, first order number}, {0, 0} when this very append was done before,
--         {-1, documents queued} when the lane is full, {-2, bytes in use} when memory is short,
--         {-3, maxmemory} when this server could never hold it.

local ids, bodies, delayed, seq_key, accepted, queued_key, marks, batch = unpack(KEYS)
local lane, channel, high_water = ARGV[1], ARGV[2], tonumber(ARGV[3])
local mark_seconds, mark, batch_seconds, batch_ends = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local size, share = tonumber(ARGV[8]), tonumber(ARGV[9])

-- A repeat of an append whose answer was lost.
if redis.call("sismember", marks, mark) == 1 then
    return {0, 0}
end

local queued = tonumber(redis.call("hget", queued_key, lane) or "0")
if queued ~= 0 and redis.call("hlen", bodies) + redis.call("hlen", delayed) == 0 then
    -- Nothing is there, so what the count says is what was lost on the way (purged, unreadable).
    redis.call("hset", queued_key, lane, 0)
    queued = 0
end
-- From the mark on, not up to it: a batch larger than what is left does not wait for ever.
if queued >= high_water then
    return {-1, queued}
end

-- Asked here and not by the client: between its question and its append others may append as well.
-- Servers that do not tell have no limit that we know of.
local memory = redis.pcall("info", "memory")
if type(memory) == "string" then
    local most = tonumber(string.match(memory, "maxmemory:(%d+)") or "0")
    local used = tonumber(string.match(memory, "used_memory:(%d+)") or "0")
    if most > 0 and size > most * share then
        return {-3, most}
    elseif most > 0 and used + size > most * share then
        return {-2, used}
    end
end

-- This server's clock, so that all web processes share one; never back, whatever the clock does.
local time = redis.call("time")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local first = math.max(tonumber(redis.call("get", seq_key) or "0") + 1, now)

local seq = first
redis.call("sadd", marks, mark)
redis.call("expire", marks, mark_seconds)
for base = 10, #ARGV, 4 do
    local message_id, count = ARGV[base], tonumber(ARGV[base + 1])
    local body = ARGV[base + 2] .. string.format("%.0f", seq) .. ARGV[base + 3]
    redis.call("hset", bodies, message_id, body)
    redis.call("rpush", ids, message_id)
    seq = seq + count
end
redis.call("set", seq_key, string.format("%.0f", seq - 1))
redis.call("hincrby", accepted, lane, seq - first)
redis.call("hincrby", queued_key, lane, seq - first)
if batch then
    redis.call("hincrby", batch, "accepted", seq - first)
    if batch_ends == "1" then
        redis.call("hset", batch, "ended", "complete")
    end
    redis.call("expire", batch, batch_seconds)
end
redis.call("publish", channel, "")
return {1, string.format("%.0f", first)}
