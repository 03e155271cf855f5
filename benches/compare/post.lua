-- wrk's second opinion: every request another signed body, from the file named in BODIES.
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do
  bodies[#bodies + 1] = line
end
local next_one = 0
request = function()
  next_one = next_one % #bodies + 1
  return wrk.format("POST", os.getenv("TARGET"), { ["Content-Type"] = "application/json" }, bodies[next_one])
end
