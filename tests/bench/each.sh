# Sourced by the benchmarks that count instructions. each UNIT FEW MORE NAME... tells what one more costs, by `count NAME
# NUMBER` of two numbers, beside ${limit[NAME]}; where that is exceeded, or nothing was counted, `over` is 1.
over=0
each() {
  local unit="$1" few="$2" more="$3" name less full cost
  shift 3
  for name; do
    less="$(count "$name" "$few")"
    full="$(count "$name" "$more")"
    cost=$(((full - less) / (more - few)))
    echo "$name: $cost instructions a $unit, of ${limit[$name]}"
    if [ "$cost" -le 0 ] || [ "$cost" -gt "${limit[$name]}" ]; then over=1; fi
  done
}
