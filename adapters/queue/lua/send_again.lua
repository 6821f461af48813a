-- Put dead letters behind the topic's events, each for its group alone. KEYS: topic, dead letters. ARGV: most events of
-- the topic, then ids. Returns how many there were.
local sent = 0
for i = 2, #ARGV do
    local entry = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
    if entry then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'e', entry[2][2], 'g', entry[2][4])
        redis.call('XDEL', KEYS[2], ARGV[i])
        sent = sent + 1
    end
end
return sent
