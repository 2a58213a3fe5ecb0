# What libFuzzer prints of its coverage, function by function, summed up by file: edges reached of those that there are,
# in the best run over each function. Only files that packets pass on their way in.
#   COVERED_FUNC: hits: 555 edges: 107/190 tcp_receive /path/src/core/tcp_in.c:1155

/COVERED_FUNC: hits:/ {
  split($5, edges, "/")
  file = $NF
  sub(/:[0-9]+$/, "", file)
  sub(/.*\/src\//, "", file)
  key = file " " $6
  if (!(key in most)) all[file] += edges[2]
  if (edges[1] > most[key]) {
    reached[file] += edges[1] - most[key]
    most[key] = edges[1]
  }
}

END {
  wanted = "guard.c guard_frame.c reassembly.c forward.c nat.c nat_table.c nat_packet.c tcp_check.c icmp.c ethernet.c " \
    "arp.c nd.c neighbour.c slaac.c dhcp.c " \
    "core/ipv4/ip4.c core/ipv4/icmp.c core/ipv6/ip6.c core/ipv6/icmp6.c core/udp.c core/tcp_in.c core/tcp_out.c core/tcp.c"
  count = split(wanted, files, " ")
  printf "%-20s %s\n", "", "edges reached"
  for (i = 1; i <= count; i++) {
    file = files[i]
    if (all[file]) printf "%-20s %5d of %5d, %3d %%\n", file, reached[file], all[file], 100 * reached[file] / all[file]
  }
}
