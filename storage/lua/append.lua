-- Append events to the stream of an attempt and number them without a gap, whoever writes.
-- KEYS: stream, claim, owner. ARGV: known last n, ttl (s), writer ('' if none), claim (ms), epoch of the owner (0: it is
-- not the owner who writes), then pairs of type and payload.
-- Types that begin with a dot are marks for readers of the journal: they take no number (id n-1, n-2 ...).
-- The owner may add text to what is sealed, which stays sealed: a correction behind the model's words.
-- Returns the last n; -1: the stream no longer holds n events; -2: another writer has the claim; -3: it has ended;
-- -4: a later owner has taken it over.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local n, sub, state = 0, 0, ''
if last then
    local a, b = string.match(last[1], '(%d+)-(%d+)')
    n, sub, state = tonumber(a), tonumber(b), last[2][2]
end
if n < tonumber(ARGV[1]) then
    return -1
end
if ARGV[5] ~= '0' and tonumber(redis.call('GET', KEYS[3]) or '0') > tonumber(ARGV[5]) then
    return -4
end
if ARGV[3] ~= '' then
    local holder = redis.call('GET', KEYS[2])
    if holder and holder ~= ARGV[3] then
        return -2
    end
end
local terminal = { ['turn.completed'] = true, ['turn.failed'] = true, ['turn.cancelled'] = true }
local ttl, ended, seal = ARGV[2], false, nil
for i = 6, #ARGV, 2 do
    local kind = ARGV[i]
    if terminal[state] or state == '.next' then
        return -3
    end
    if state == '.sealed' and not terminal[kind] and kind ~= '.next' then
        if kind ~= 'message.delta' or ARGV[5] == '0' then
            return -3
        end
        seal = last[2][4]
    end
    -- An attempt opens once: its owner says so again where the answer to the first time was lost.
    if n == 0 or (kind ~= 'turn.accepted' and kind ~= 'turn.reset') then
        if string.sub(kind, 1, 1) == '.' then
            sub = sub + 1
        else
            n, sub = n + 1, 0
        end
        redis.call('XADD', KEYS[1], n .. '-' .. sub, 't', kind, 'd', ARGV[i + 1])
        state = kind
        ended = ended or kind == '.round'
    end
    if terminal[kind] then
        ttl = '30'
    end
end
if seal and state == 'message.delta' then
    redis.call('XADD', KEYS[1], n .. '-1', 't', '.sealed', 'd', seal)
    state = '.sealed'
end
if #ARGV > 5 then
    redis.call('EXPIRE', KEYS[1], ttl)
end
if state == '.sealed' or ended then
    redis.call('DEL', KEYS[2])
elseif ARGV[3] ~= '' then
    redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
end
return n
