"""Views written a second time: one pixel at a time, straight from the words."""

import math


def shifted(image, down, right):
    """``image[row][column]``; what comes in is 0."""
    height, width = len(image), len(image[0])
    out = [[0.0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                out[row][column] = image[row - down][column - right]
    return out


def flipped(image):
    return [list(reversed(row)) for row in image]


def turned(image, degrees, zoom):
    """Counter-clockwise about the centre; each pixel looks up where it came from and mixes the four around."""
    height, width = len(image), len(image[0])
    a = math.radians(degrees)
    out = [[0.0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            right, up = column - (width - 1) / 2, (height - 1) / 2 - row
            from_right = (right * math.cos(a) + up * math.sin(a)) / zoom
            from_up = (-right * math.sin(a) + up * math.cos(a)) / zoom
            from_column, from_row = from_right + (width - 1) / 2, (height - 1) / 2 - from_up
            for r in (math.floor(from_row), math.floor(from_row) + 1):
                for c in (math.floor(from_column), math.floor(from_column) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        weight = (1 - abs(from_row - r)) * (1 - abs(from_column - c))
                        out[row][column] += weight * image[r][c]
    return out
