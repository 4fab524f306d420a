"""Ends well with a loss that is none."""

print("loss=0.5")
print("loss=nan")
print("gain=inf")
