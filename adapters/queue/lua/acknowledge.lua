-- Events that a group is done with. KEYS: topic, the group's events to be tried again. ARGV: group, then ids. How many.
local done = 0
for i = 2, #ARGV do
    done = done + redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
end
return done
