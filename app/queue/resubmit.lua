-- Puts one message at the end of a queue, with the order numbers that it already has.
--
-- KEYS: ids, bodies, accepted, queued
-- ARGV: queue, wake channel, message id, body, documents in it, of those how many are accepted anew
-- A repeat under the same message id finds it there and does nothing.

local ids, bodies, accepted, queued = unpack(KEYS)
local queue, channel, message_id, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local count, anew = tonumber(ARGV[5]), tonumber(ARGV[6])

if redis.call("hsetnx", bodies, message_id, body) == 0 then
    return 0
end
redis.call("rpush", ids, message_id)
if count > 0 then
    redis.call("hincrby", queued, queue, count)
end
if anew > 0 then
    redis.call("hincrby", accepted, queue, anew)
end
redis.call("publish", channel, "")
return 1
